"""Is one forecast better than another, and how sure is that? A paired block bootstrap over issue times and pairs."""

from collections.abc import Mapping
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
    candidate: Float[np.ndarray, "*pairs windows"],
    reference: Float[np.ndarray, "*pairs windows"],
    issue_hour: Int[np.ndarray, " windows"],
    *,
    seed: int,
) -> Gain:
    """Compare the losses of two forecasts of the same windows, window by window.

    Where each was trained several times, side by side with its counterpart, the gain is that of the mean loss, and
    pairs are resampled as windows are: the interval tells of a training with another seed, too.

    Windows issued at the same hour (of several series) are averaged first. Neighbouring windows overlap and one bad
    day spoils many of them: resampling takes whole blocks of a week, or a quarter of what there is if that is less
    than four weeks. Source: Politis and Romano 1992, the circular block bootstrap (arch); resampling both ways of a
    crossed design: Owen 2007, the pigeonhole bootstrap.

    Raises ValueError where the arrays differ in shape or are empty.
    """
    if candidate.shape != reference.shape or candidate.shape[-1] != len(issue_hour) or candidate.size == 0:
        raise ValueError(
            f"losses of shape {candidate.shape} and {reference.shape} at {len(issue_hour)} windows can't be paired"
        )
    hours, place = np.unique(issue_hour, return_inverse=True)
    first, second = (_by_hour(np.atleast_2d(losses), place) for losses in (candidate, reference))
    pairs, draw = first.shape[1], np.random.default_rng(seed)

    def gain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        drawn = draw.integers(pairs, size=pairs)
        return np.array([1 - a[:, drawn].mean() / b[:, drawn].mean()])

    block = max(1, min(BLOCK_HOURS, len(hours) // 4))
    draws = CircularBlockBootstrap(block, first, second, seed=seed).apply(gain, REPETITIONS)[:, 0]
    low, high = np.quantile(draws, [0.025, 0.975])
    p = (1 + int((draws <= 0).sum())) / (1 + REPETITIONS)
    return Gain(float(1 - first.mean() / second.mean()), float(low), float(high), float(p), len(hours))


def worth_of(over_twin: Mapping[str, float], over_control: Mapping[str, float] | None) -> str:
    """Were the privileged data worth it? From the intervals of the gains, as of `Gain.as_dict`.

    The gain over twins tells what a teacher brought, privileged or not. The one over students of teachers without
    privilege, where there are any, tells what the privilege did; it is asked for only where the first is surely above
    0.
    """
    if over_twin["high"] < 0:
        return "the teacher did harm"
    if over_twin["low"] <= 0:
        return "whether the teacher was worth it is not settled"
    if over_control is None:
        return "the teacher was worth it"
    if over_control["high"] < 0:
        return "the teacher was worth it, and without the privileged data it would have been worth more"
    if over_control["low"] <= 0:
        return "the teacher was worth it; whether the privileged data were is not settled"
    return "the privileged data were worth it"


def _by_hour(losses: Float[np.ndarray, "pairs windows"], place: Int[np.ndarray, " windows"]) -> np.ndarray:
    """(hours, pairs): the mean over the windows of each issue hour, which is numbered by `place`."""
    return np.stack([np.bincount(place, own) for own in losses], axis=1) / np.bincount(place)[:, None]
