"""Which recipe to take, by what trials scored on the folds of a history.

**The rule.** The best trial has the lowest CRPS, averaged over seeds and folds. Taken is the simplest that is not
clearly worse: the one with the lowest α whose CRPS lies above the best's by no more than one standard error (Breiman et
al. 1984, the one-standard-error rule). The simplest of all is the twin, α = 0.

**Noise.** The standard error is that of the paired difference to the best, over folds: what makes a stretch hard is
the same for all trials and drops out. Seeds are averaged before, so their noise is part of it. Folds share training
hours, so it is too small rather than too large (Bengio and Grandvalet 2004): it guards a choice, it is no test. From
one fold nothing can be said about noise: the twin is taken.

**Ties.** Of several with the same α the lower CRPS is taken, of equal ones the first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Rule = Literal["one-standard-error", "average"]
Kind = Literal["twin", "single", "average"]


@dataclass(frozen=True)
class Result:
    """What one trial scored: CRPS by fold, its own and its twin's, each a mean over seeds, in the target's unit.

    kind: twin (α = 0), single (one recipe) or average (one student of many recipes' teachers)
    """

    name: str
    kind: Kind
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
        """The share of the twin's mean CRPS that this trial has less."""
        return 1 - self.mean_crps / self.mean_twin_crps

    @property
    def gain_by_fold(self) -> tuple[float, ...]:
        """The same, fold by fold."""
        return tuple(1 - own / twin for own, twin in zip(self.crps, self.twin_crps, strict=True))

    @property
    def gain_standard_error(self) -> float:
        """Of the gain: that of the paired difference over folds, as a share of the twin's mean CRPS."""
        return standard_error(np.subtract(self.twin_crps, self.crps)) / self.mean_twin_crps


@dataclass(frozen=True)
class Choice:
    """The trial that is taken, the one with the lowest CRPS, and the names of all that are not clearly worse."""

    chosen: Result
    best: Result
    within: tuple[str, ...]


def standard_error(differences: Float[np.ndarray, " folds"]) -> float:
    """Of the mean over folds; infinite for a single fold."""
    if len(differences) < 2:
        return math.inf
    return float(np.std(differences, ddof=1) / math.sqrt(len(differences)))


def choose_recipe(results: Sequence[Result], rule: Rule = "one-standard-error") -> Choice:
    """Choose among trials by the rule above, `one-standard-error` among single recipes and twins.

    `average` chooses no recipe: it takes the average of all, unless the twin is within one standard error.

    Raises ValueError where no twin or nothing to choose is among the results, or their folds differ in number.
    """
    kind = "single" if rule == "one-standard-error" else "average"
    there = [result for result in results if result.kind in ("twin", kind)]
    if not any(result.kind == "twin" for result in there):
        raise ValueError("no twin (alpha 0) is among the results: there is nothing that a teacher must be better than")
    if not any(result.kind == kind for result in there):
        raise ValueError(f"no {kind} recipe is among the results")
    if len({len(result.crps) for result in there}) != 1:
        raise ValueError("the results are of different folds")
    best = min(there, key=lambda result: result.mean_crps)
    within = [result for result in there if _not_clearly_worse(result, best)]
    chosen = min(within, key=lambda result: (result.alpha, result.mean_crps))
    return Choice(chosen, best, tuple(result.name for result in within))


def _not_clearly_worse(result: Result, best: Result) -> bool:
    differences = np.subtract(result.crps, best.crps)
    return float(np.mean(differences)) <= standard_error(differences)
