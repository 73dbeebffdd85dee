"""The choice of a recipe from the scores of trials on the folds of a history.

**The rule.** The best trial has the lowest CRPS, averaged over seeds and folds. The choice is the simplest trial that
is not clearly worse: the lowest α among those whose CRPS is at most one standard error above the best (the
one-standard-error rule, Breiman et al. 1984). The simplest of all is the twin, α = 0.

**Noise.** The standard error is that of the paired difference to the best, over folds, because the difficulty of a
scored period is the same for all trials and cancels. Seeds are averaged first, so their noise is included. Folds share
training hours, so the standard error is too small rather than too large (Bengio and Grandvalet 2004): it guards a
choice, it is not a test. A single fold gives no standard error: the choice is the twin.

**Ties.** Among trials with the same α the lower CRPS wins; among equal ones the first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Rule = Literal["one-standard-error", "average"]
TrialKind = Literal["twin", "single", "average"]


@dataclass(frozen=True)
class TrialResult:
    """The scores of a trial: CRPS by fold, of the trial and its twin, means over seeds, in the target's unit.

    kind: twin (α = 0), single (one recipe) or average (one student of many recipes' teachers)
    """

    name: str
    kind: TrialKind
    alpha: float
    crps: tuple[float, ...]
    twin_crps: tuple[float, ...]

    @property
    def mean_crps(self) -> float:
        """CRPS averaged over folds."""
        return float(np.mean(self.crps))

    @property
    def mean_twin_crps(self) -> float:
        """The twin's CRPS averaged over folds."""
        return float(np.mean(self.twin_crps))

    @property
    def gain(self) -> float:
        """The gain over the twin, as a share of the twin's mean CRPS."""
        return 1 - self.mean_crps / self.mean_twin_crps

    @property
    def gain_by_fold(self) -> tuple[float, ...]:
        """The gain over the twin by fold."""
        return tuple(1 - crps / twin for crps, twin in zip(self.crps, self.twin_crps, strict=True))

    @property
    def gain_standard_error(self) -> float:
        """Standard error of the gain: that of the paired difference over folds, as a share of the twin's mean CRPS."""
        return standard_error(np.subtract(self.twin_crps, self.crps)) / self.mean_twin_crps


@dataclass(frozen=True)
class Choice:
    """The chosen trial, the one with the lowest CRPS, and the names of those within one standard error of it."""

    chosen: TrialResult
    best: TrialResult
    within: tuple[str, ...]


def standard_error(differences: Float[np.ndarray, " folds"]) -> float:
    """Standard error of the mean over folds; infinite for a single fold."""
    if len(differences) < 2:
        return math.inf
    return float(np.std(differences, ddof=1) / math.sqrt(len(differences)))


def choose_recipe(results: Sequence[TrialResult], rule: Rule = "one-standard-error") -> Choice:
    """Choose among trials by the rule above.

    `one-standard-error` chooses among single recipes and twins. `average` chooses no single recipe: it takes the
    average of all, unless the twin is within one standard error.

    Raises ValueError where the results contain no twin or no trial to choose, or their folds differ in number.
    """
    kind = "single" if rule == "one-standard-error" else "average"
    candidates = [result for result in results if result.kind in ("twin", kind)]
    if not any(result.kind == "twin" for result in candidates):
        raise ValueError("no twin (alpha 0) is among the results: the teachers have no baseline")
    if not any(result.kind == kind for result in candidates):
        raise ValueError(f"no {kind} recipe is among the results")
    if len({len(result.crps) for result in candidates}) != 1:
        raise ValueError("the results cover different folds")
    best = min(candidates, key=lambda result: result.mean_crps)
    within = [result for result in candidates if _not_clearly_worse(result, best)]
    chosen = min(within, key=lambda result: (result.alpha, result.mean_crps))
    return Choice(chosen, best, tuple(result.name for result in within))


def _not_clearly_worse(result: TrialResult, best: TrialResult) -> bool:
    differences = np.subtract(result.crps, best.crps)
    return float(np.mean(differences)) <= standard_error(differences)
