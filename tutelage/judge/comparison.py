"""Comparison of two forecasts: a paired t-test over issue times and replicates.

Neighbouring windows overlap, a bad day affects many of them, and a month may favour one of two equal networks. So the
variance of a mean over time comes from its slowest movements alone, those that take weeks: they hold what lasts. A
bootstrap of weeks claims a gain too often there (`benchmarks/promotion.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64
from scipy.stats import t

from tutelage.forecasts import Contender

COSINES = 3
LEVEL = 0.975
NEGLIGIBLE = 1e-4
"""A gain as small as a hundredth of a per cent is rounding: an exported graph computes in single precision."""


@dataclass(frozen=True)
class Gain:
    """The gain in mean loss over a reference, 0.05 for 5 % less loss, with its 95 % interval.

    p: one-sided
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
) -> Gain:
    """Compare the losses of two forecasts of the same windows, window by window.

    Windows issued at the same hour (of several series) are averaged first. With several replicates of both, paired by
    seed, the gain is that of the mean loss, and the interval also covers training with another seed. One issue time
    says nothing: its interval reaches 100 % to both sides. Of a reference without any loss, such as yesterday's value
    of a meter that stands still, a candidate with some is 100 % worse.

    Raises ValueError where the arrays differ in shape or are empty.
    Source: `cosine_error`; Satterthwaite 1946 for the degrees of freedom of a sum of two variances.
    """
    if candidate.shape != reference.shape or candidate.shape[-1] != len(issue_hour) or candidate.size == 0:
        raise ValueError(
            f"losses of shape {candidate.shape} and {reference.shape} at {len(issue_hour)} windows can't be paired"
        )
    hours, place = np.unique(issue_hour, return_inverse=True)
    first, second = (_by_hour(np.atleast_2d(losses), place) for losses in (candidate, reference))
    if second.mean() == 0:
        gain = -1.0 if first.mean() > 0 else 0.0
        return Gain(gain, gain, gain, 1.0, len(hours))
    ratio = first.mean() / second.mean()
    if len(hours) == 1:
        return Gain(float(1 - ratio), float(-ratio), float(2 - ratio), 1.0, 1)
    # How much each issue time adds to the gain: the first-order change of a ratio of means.
    error, freedom = cosine_error((ratio * second - first).mean(axis=1) / second.mean())
    if first.shape[1] > 1:
        error, freedom = _with_replicates(error, freedom, 1 - first.mean(axis=0) / second.mean(axis=0))
    gain, reach = float(1 - ratio), float(t.ppf(LEVEL, freedom)) * error
    return Gain(gain, gain - reach, gain + reach, one_sided_p(gain, error, freedom), len(hours))


@dataclass(frozen=True)
class Losses:
    """CRPS by issue time: the mean over the windows issued then.

    step: the issue times, ascending, as steps of the data's clock
    by_contender: of each contender, for each of its replicates
    """

    step: Int64[np.ndarray, " times"]
    by_contender: Mapping[Contender, Float[np.ndarray, "replicates times"]]

    def mean(self, name: Contender) -> float:
        """Mean CRPS of a contender."""
        return float(self.by_contender[name].mean())


def gain_between(candidate: tuple[Losses, Contender], reference: tuple[Losses, Contender]) -> Gain:
    """The gain of a contender of one retrain over a contender of another, on the issue times of both.

    Raises ValueError where they have no issue time in common.
    """
    (first, name), (second, other) = candidate, reference
    step, mine, others = np.intersect1d(first.step, second.step, assume_unique=True, return_indices=True)
    return gain_over(first.by_contender[name][:, mine], second.by_contender[other][:, others], step)


def losses_by_time(
    by_contender: Mapping[Contender, Float[np.ndarray, "_ windows"]], issue_step: Int[np.ndarray, " windows"]
) -> Losses:
    """The losses of windows, averaged over those that were issued at the same time (of several series)."""
    step, place = np.unique(issue_step, return_inverse=True)
    return Losses(
        step.astype(np.int64), {name: _by_hour(losses, place).T.copy() for name, losses in by_contender.items()}
    )


def cosine_error(values: Float[np.ndarray, " times"]) -> tuple[float, float]:
    """The standard error of a mean of values in order of time that may depend on each other; its degrees of freedom.

    Source: the equal-weighted cosine estimator with fixed-smoothing critical values (Müller 2004; Lazarus, Lewis, Stock
    and Watson 2018), with COSINES terms, fewer for fewer than four values.
    """
    times = len(values)
    terms = min(COSINES, times - 1)
    place = (np.arange(times) + 0.5) / times
    cosines = np.cos(np.pi * np.arange(1, terms + 1)[:, None] * place)
    variance = np.square(cosines @ values).mean() * 2 / times
    return float(np.sqrt(variance / times)), terms


def one_sided_p(mean: float, error: float, freedom: float) -> float:
    """The p of a mean above 0 by a t-test; without any error it is 0 or 1."""
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(t.sf(mean / error, freedom))


def _with_replicates(error: float, freedom: float, gains: Float[np.ndarray, " replicates"]) -> tuple[float, float]:
    """The standard error of a gain over time and replicates, and its degrees of freedom."""
    over_time, over_replicates = error**2, float(gains.var(ddof=1)) / len(gains)
    if over_replicates == 0:
        return error, freedom
    variance = over_time + over_replicates
    return variance**0.5, variance**2 / (over_time**2 / freedom + over_replicates**2 / (len(gains) - 1))


def _by_hour(losses: Float[np.ndarray, "replicates windows"], place: Int[np.ndarray, " windows"]) -> np.ndarray:
    """Mean over the windows of each issue hour, whose index is `place`: (hours, replicates)."""
    return np.stack([np.bincount(place, member) for member in losses], axis=1) / np.bincount(place)[:, None]
