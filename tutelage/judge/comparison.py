"""Comparison of two forecasts: a paired block bootstrap over issue times and replicates."""

from dataclasses import dataclass

import numpy as np
from arch.bootstrap import CircularBlockBootstrap
from jaxtyping import Float, Int

from tutelage.forecasts import Contender

BLOCK_HOURS = 168
REPETITIONS = 2000
NEGLIGIBLE = 1e-4
"""A gain as small as a hundredth of a per cent is rounding: an exported graph computes in single precision."""


@dataclass(frozen=True)
class Gain:
    """The gain in mean loss over a reference, 0.05 for 5 % less loss, with its 95 % interval.

    p: one-sided, (1 + resamples without a gain) / (1 + resamples)
    windows: number of issue times compared
    """

    estimate: float
    low: float
    high: float
    p: float
    windows: int


@dataclass(frozen=True)
class Gains:
    """The students' gain in CRPS over their twins, and over unprivileged students where there are any.

    by_replicate: the gain over the twin of each replicate
    """

    over_twin: Gain
    over_unprivileged: Gain | None
    by_replicate: list[float]


@dataclass(frozen=True)
class Floor:
    """The best of the simple forecasts on the test part, and the chosen network's gain over it in CRPS."""

    baseline: Contender
    gain: Gain

    @property
    def is_beaten(self) -> bool:
        """Whether the chosen network is significantly better than every simple forecast."""
        return self.gain.low > NEGLIGIBLE

    @property
    def is_missed(self) -> bool:
        """Whether the chosen network is significantly worse than a simple forecast."""
        return self.gain.high < -NEGLIGIBLE

    @property
    def bars_promotion(self) -> bool:
        """Whether that keeps a version from becoming champion: its CRPS isn't below that of each simple forecast."""
        return not self.gain.estimate > NEGLIGIBLE


def gain_over(
    candidate: Float[np.ndarray, "*replicates windows"],
    reference: Float[np.ndarray, "*replicates windows"],
    issue_hour: Int[np.ndarray, " windows"],
    *,
    seed: int,
) -> Gain:
    """Compare the losses of two forecasts of the same windows, window by window.

    With several replicates of both, paired by seed, the gain is that of the mean loss, and replicates are resampled
    like windows: the interval also covers training with another seed.

    Windows issued at the same hour (of several series) are averaged first. Neighbouring windows overlap and one bad
    day affects many of them, so resampling uses blocks of one week, or a quarter of the issue times if they cover less
    than four weeks.

    Raises ValueError where the arrays differ in shape or are empty.
    Source: Politis and Romano 1992, the circular block bootstrap (arch); resampling both dimensions of a crossed
    design: Owen 2007, the pigeonhole bootstrap.
    """
    if candidate.shape != reference.shape or candidate.shape[-1] != len(issue_hour) or candidate.size == 0:
        raise ValueError(
            f"losses of shape {candidate.shape} and {reference.shape} at {len(issue_hour)} windows can't be paired"
        )
    hours, place = np.unique(issue_hour, return_inverse=True)
    first, second = (_by_hour(np.atleast_2d(losses), place) for losses in (candidate, reference))
    replicates, draw = first.shape[1], np.random.default_rng(seed)

    def gain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        drawn = draw.integers(replicates, size=replicates)
        return np.array([1 - a[:, drawn].mean() / b[:, drawn].mean()])

    block = max(1, min(BLOCK_HOURS, len(hours) // 4))
    draws = CircularBlockBootstrap(block, first, second, seed=seed).apply(gain, REPETITIONS)[:, 0]
    low, high = np.quantile(draws, [0.025, 0.975])
    p = (1 + int((draws <= 0).sum())) / (1 + REPETITIONS)
    return Gain(float(1 - first.mean() / second.mean()), float(low), float(high), float(p), len(hours))


def _by_hour(losses: Float[np.ndarray, "replicates windows"], place: Int[np.ndarray, " windows"]) -> np.ndarray:
    """Mean over the windows of each issue hour, whose index is `place`: (hours, replicates)."""
    return np.stack([np.bincount(place, member) for member in losses], axis=1) / np.bincount(place)[:, None]
