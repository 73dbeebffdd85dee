"""Adaptive conformal correction: forecasts become wider where too much falls outside of them, and narrower where too
little does.

Below and above the median the distance of all quantiles from it is multiplied by a factor. Both follow what comes true,
step by step, so that a tenth of the actual values falls below the 80 % interval and a tenth above, also when the season
shifts. A model by itself can't do that: its intervals are right for the days that they were fitted on.

Source: Gibbs and Candès 2021, Adaptive Conformal Inference Under Distribution Shift; Angelopoulos et al. 2023,
Conformal PID Control for Time Series Prediction, whose quantile tracker this is, on distances in units of the
forecast's own.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tutelage.data.grid import HOUR, HOURLY, Grid
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts

RATE_PER_HOUR = 0.04
"""Of the factors' logarithms: with it coverage is right after two weeks or so, and CRPS is not worse (docs/log.md)."""
OUTSIDE = 0.1
"""The share of actual values that is to fall below the interval, and above."""
LOW, MIDDLE, HIGH = (QUANTILE_LEVELS.index(level) for level in (OUTSIDE, 0.5, 1 - OUTSIDE))
LONGEST_STEP_HOURS = 3
"""A longer step moves the factors as far as one of this length: in a day there is one value of it, not 24."""
LONGEST_HOURS = 24
"""After a longer time without actual values the factors move as if it had been this long."""
LARGEST = 4.0
"""The factors stay between this and its inverse."""


@dataclass(frozen=True)
class Widths:
    """Factors on the distance of quantiles from the median, of those below it and of those above; 1: as forecast."""

    below: float = 1.0
    above: float = 1.0


def widened(forecasts: Forecasts, widths: Widths) -> Forecasts:
    """The forecasts with these widths; the mean moves as far as the mean of the quantiles does."""
    median = forecasts.quantiles[..., MIDDLE : MIDDLE + 1]
    factor = np.where(np.array(QUANTILE_LEVELS) < QUANTILE_LEVELS[MIDDLE], widths.below, widths.above)
    quantiles = median + factor * (forecasts.quantiles - median)
    return Forecasts(forecasts.mean + (quantiles - forecasts.quantiles).mean(axis=-1), quantiles)


def follow(
    widths: Widths,
    step: Int[np.ndarray, " values"],
    forecast: Float[np.ndarray, "values levels"],
    actual: Float[np.ndarray, " values"],
    *,
    since: int | None = None,
    grid: Grid = HOURLY,
) -> Widths:
    """The widths after some steps have come true.

    step: the target step of each value, in any order; a step may be forecast several times, with different lead times
    forecast: the quantiles before they were widened
    since: the last step that came true before; None: the step before the first
    """
    rate_of_step = RATE_PER_HOUR * min(grid.hours, LONGEST_STEP_HOURS)
    longest = max(LONGEST_HOURS * HOUR // grid.step, 1)
    below, above = np.log([widths.below, widths.above])
    limit = np.log(LARGEST)
    before = int(step.min()) - 1 if since is None and len(step) else since
    for each in np.unique(step):
        assert before is not None
        here = step == each
        low, middle, high = (forecast[here, place] for place in (LOW, MIDDLE, HIGH))
        under = _excess(actual[here] < middle - np.exp(below) * (middle - low), middle > low)
        over = _excess(actual[here] > middle + np.exp(above) * (high - middle), high > middle)
        rate = rate_of_step * min(max(int(each) - before, 1), longest)
        below, above = np.clip([below + rate * under, above + rate * over], -limit, limit)
        before = int(each)
    return Widths(float(np.exp(below)), float(np.exp(above)))


def _excess(outside: Bool[np.ndarray, " values"], has_width: Bool[np.ndarray, " values"]) -> float:
    """By how much too many values are outside; those at an atom, where the forecast has no width, don't count."""
    return float(outside[has_width].mean()) - OUTSIDE if has_width.any() else 0.0


def as_issued(
    forecasts: Forecasts,
    issue_step: Int[np.ndarray, " windows"],
    actual: Float[np.ndarray, "windows horizon"],
    grid: Grid = HOURLY,
) -> Forecasts:
    """One series' forecasts as they would have been issued, each with the widths that what was known by then gives."""
    horizon = actual.shape[1]
    target = (issue_step[:, None] + np.arange(horizon)).ravel()
    order = np.argsort(target, kind="stable")
    target, true = target[order], actual.ravel()[order]
    quantiles = forecasts.quantiles.reshape(len(target), -1)[order]
    widths, done, since = Widths(), 0, None
    mean, issued = np.empty_like(forecasts.mean), np.empty_like(forecasts.quantiles)
    for window in np.argsort(issue_step, kind="stable"):
        known = int(np.searchsorted(target, issue_step[window]))
        if known > done:
            part = slice(done, known)
            widths = follow(widths, target[part], quantiles[part], true[part], since=since, grid=grid)
            done, since = known, int(target[known - 1])
        moved = widened(forecasts.at(np.array([window])), widths)
        mean[window], issued[window] = moved.mean[0], moved.quantiles[0]
    return Forecasts(mean, issued)
