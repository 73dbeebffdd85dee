"""Is one forecast better than another, and how sure is that? A paired block bootstrap over issue times."""

from dataclasses import asdict, dataclass

import numpy as np
from arch.bootstrap import CircularBlockBootstrap
from jaxtyping import Float, Int

BLOCK_HOURS = 168
REPETITIONS = 2000


@dataclass(frozen=True)
class Gain:
    """The relative gain in mean loss over a reference, 0.05 for 5 % less, with its 95 % interval.

    p: one-sided, (1 + resamples without a gain) / (1 + resamples)
    windows: issue times that were compared
    """

    estimate: float
    low: float
    high: float
    p: float
    windows: int

    def as_dict(self) -> dict[str, float]:
        """The gain as plain values."""
        return asdict(self)


def gain_over(
    candidate: Float[np.ndarray, " windows"],
    reference: Float[np.ndarray, " windows"],
    issue_hour: Int[np.ndarray, " windows"],
    *,
    seed: int,
) -> Gain:
    """Compare the losses of two forecasts of the same windows, window by window.

    Windows issued at the same hour (of several series) are averaged first. Neighbouring windows overlap and one bad
    day spoils many of them: resampling takes whole blocks of a week, or a quarter of what there is if that is less
    than four weeks. Source: Politis and Romano 1992, the circular block bootstrap (arch).

    Raises ValueError where the arrays differ in length or are empty.
    """
    if not len(candidate) == len(reference) == len(issue_hour) or len(candidate) == 0:
        raise ValueError(f"losses of {len(candidate)}, {len(reference)} and {len(issue_hour)} windows can't be paired")
    hours, place = np.unique(issue_hour, return_inverse=True)
    count = np.bincount(place)
    first, second = np.bincount(place, candidate) / count, np.bincount(place, reference) / count

    def gain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.array([1 - a.mean() / b.mean()])

    block = max(1, min(BLOCK_HOURS, len(hours) // 4))
    draws = CircularBlockBootstrap(block, first, second, seed=seed).apply(gain, REPETITIONS)[:, 0]
    low, high = np.quantile(draws, [0.025, 0.975])
    p = (1 + int((draws <= 0).sum())) / (1 + REPETITIONS)
    return Gain(float(gain(first, second)[0]), float(low), float(high), float(p), len(hours))
