"""Adaptive conformal correction: forecasts become wider where too much falls outside of them, and narrower where too
little does.

Below and above the median the distance of all quantiles from it is multiplied by a factor. Both follow what comes true,
step by step, so that a tenth of the actual values falls below the 80 % interval and a tenth above, also when the season
shifts. A model by itself can't do that: its intervals are right for the days that they were fitted on.

Source: Gibbs and Candès 2021, Adaptive Conformal Inference Under Distribution Shift; Angelopoulos et al. 2023,
Conformal PID Control for Time Series Prediction, whose quantile tracker this is, on distances in units of the
forecast's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tutelage.data.grid import HOUR, HOURLY, Grid
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts

RATE_PER_HOUR = 0.04
"""Of the factors' logarithms: with it coverage is right after two weeks or so, and CRPS is not worse (docs/log.md)."""
OUTSIDE = 0.1
"""The share of actual values that is to fall below the interval, and above."""
EDGES = [QUANTILE_LEVELS.index(level) for level in (OUTSIDE, 0.5, 1 - OUTSIDE)]
"""Where the quantiles are that the factors are learned from: the interval's edges, and the median between them."""
MIDDLE = EDGES[1]
LONGEST_STEP_HOURS = 3
"""A longer step counts as one of this length: in a day there is one value of it, not 24."""
LONGEST_HOURS = 24
"""A longer time without actual values counts as so long."""
LARGEST = 4.0
"""The factors stay between this and its inverse."""


@dataclass(frozen=True)
class Widths:
    """Factors on the distance of quantiles from the median, of those below it and of those above; 1: as forecast."""

    below: float = 1.0
    above: float = 1.0


def widened(forecasts: Forecasts, widths: Widths) -> Forecasts:
    """The forecasts with these widths."""
    median = forecasts.quantiles[..., MIDDLE : MIDDLE + 1]
    factor = np.where(np.array(QUANTILE_LEVELS) < QUANTILE_LEVELS[MIDDLE], widths.below, widths.above)
    return forecasts.with_quantiles(median + factor * (forecasts.quantiles - median))


def follow(
    widths: Widths,
    step: Int[np.ndarray, " values"],
    edges: Float[np.ndarray, "values 3"],
    actual: Float[np.ndarray, " values"],
    *,
    since: int | None = None,
    grid: Grid = HOURLY,
) -> Widths:
    """The widths after some steps have come true.

    step: the target step of each value, in any order; a step may be forecast several times, with different lead times
    edges: the quantiles at `EDGES`, before they were widened
    since: the last step that came true before; None: the step before the first
    """
    below, above = np.log([widths.below, widths.above])
    limit = np.log(LARGEST)
    for each, hours in hours_between(step, since, grid):
        here = step == each
        low, middle, high = edges[here].T
        under = _excess(actual[here] < middle - np.exp(below) * (middle - low), middle > low)
        over = _excess(actual[here] > middle + np.exp(above) * (high - middle), high > middle)
        rate = RATE_PER_HOUR * hours
        below, above = np.clip([below + rate * under, above + rate * over], -limit, limit)
    return Widths(float(np.exp(below)), float(np.exp(above)))


def hours_between(step: Int[np.ndarray, " values"], since: int | None, grid: Grid) -> Iterator[tuple[int, float]]:
    """Each step that came true, in order, with the hours from the one before it that count.

    since: the last step that came true before; None: the step before the first
    """
    longest, before = max(LONGEST_HOURS * HOUR // grid.step, 1), since
    for each in map(int, np.unique(step)):
        passed = 1 if before is None else min(max(each - before, 1), longest)
        yield each, step_hours(grid) * passed
        before = each


def step_hours(grid: Grid) -> float:
    """How many hours a step counts as."""
    return min(grid.hours, LONGEST_STEP_HOURS)


def _excess(outside: Bool[np.ndarray, " values"], has_width: Bool[np.ndarray, " values"]) -> float:
    """By how much too many values are outside; those at an atom, where the forecast has no width, don't count."""
    return float(outside[has_width].mean()) - OUTSIDE if has_width.any() else 0.0
