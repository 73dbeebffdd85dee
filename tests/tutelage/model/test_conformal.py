from statistics import NormalDist

import numpy as np
import pytest

from tutelage.data.grid import HOUR, MINUTE, Grid
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts
from tutelage.model.conformal import EDGES, LARGEST, MIDDLE, Widths, follow, hours_between, widened

Z = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])


def normal(windows: int, horizon: int, mean: float = 5.0) -> Forecasts:
    """A normal distribution with standard deviation 1, for every hour."""
    return Forecasts(np.full((windows, horizon), mean), np.broadcast_to(mean + Z, (windows, horizon, len(Z))))


def test_widened__the_median_stays_and_each_side_has_its_factor() -> None:
    forecasts = normal(2, 3)
    wider = widened(forecasts, Widths(below=2.0, above=0.5))
    np.testing.assert_allclose(wider.quantiles[0, 0, MIDDLE], 5)
    np.testing.assert_allclose(wider.quantiles[..., 9], 5 + 2 * Z[9])
    np.testing.assert_allclose(wider.quantiles[..., 89], 5 + 0.5 * Z[89])
    np.testing.assert_allclose(wider.mean, wider.quantiles.mean(axis=-1) + 5 - forecasts.quantiles.mean(axis=-1))
    np.testing.assert_allclose(widened(forecasts, Widths()).quantiles, forecasts.quantiles)


def test_follow__step_by_step_is_the_same_as_at_once() -> None:
    random = np.random.default_rng(3)
    hour, actual = np.arange(50) + 1000, 5 + 2 * random.normal(size=50)
    forecast = np.broadcast_to(5 + Z[EDGES], (50, 3))
    at_once = follow(Widths(), hour, forecast, actual, since=999)
    step, since = Widths(), 999
    for first, last in ((0, 20), (20, 21), (21, 50)):
        step = follow(step, hour[first:last], forecast[first:last], actual[first:last], since=since)
        since = 999 + last
    assert (step.below, step.above) == pytest.approx((at_once.below, at_once.above))


def test_follow__hours_at_an_atom_tell_nothing() -> None:
    at_night = np.zeros((12, 3))
    widths = follow(Widths(1.5, 0.7), np.arange(12), at_night, np.zeros(12))
    assert (widths.below, widths.above) == pytest.approx((1.5, 0.7))
    # The median is at the atom: only what is above it counts.
    dusk = np.maximum(np.broadcast_to(Z[EDGES], (12, 3)), 0)
    widths = follow(Widths(1.5, 0.7), np.arange(12), dusk, np.zeros(12))
    assert widths.below == pytest.approx(1.5)
    assert widths.above < 0.7


def test_follow__without_values_nothing_changes_and_there_are_limits() -> None:
    nothing = np.zeros(0)
    before = Widths(1.5, 0.7)
    after = follow(before, nothing.astype(int), np.zeros((0, 3)), nothing)
    assert (after.below, after.above) == pytest.approx((1.5, 0.7))
    hour = np.arange(3000)
    far = follow(Widths(), hour, np.broadcast_to(5 + Z[EDGES], (3000, 3)), np.full(3000, 1e6))
    assert far.above == pytest.approx(LARGEST)
    assert far.below == pytest.approx(1 / LARGEST)


def test_hours_between__a_gap_counts_and_a_long_one_as_a_day() -> None:
    steps = np.array([7, 5, 5, 60])
    assert [*hours_between(steps, 4, Grid(HOUR))] == [(5, 1), (7, 2), (60, 24)]
    assert [*hours_between(steps, None, Grid(HOUR))] == [(5, 1), (7, 2), (60, 24)]
    assert [*hours_between(steps, 4, Grid(15 * MINUTE))] == [(5, 0.25), (7, 0.5), (60, 53 / 4)]
    # In a day there is one value of such a step, not 24.
    assert [*hours_between(steps[1:2], 4, Grid(24 * HOUR))] == [(5, 3)]
