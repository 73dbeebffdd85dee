from statistics import NormalDist

import numpy as np
import pytest

from tutelage.forecasts import QUANTILE_LEVELS, Forecasts, crps
from tutelage.model.conformal import LARGEST, MIDDLE, Widths, as_issued, follow, widened

Z = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])


def normal(windows: int, horizon: int) -> Forecasts:
    """A normal distribution with mean 5 and standard deviation 1, for every hour."""
    return Forecasts(np.full((windows, horizon), 5.0), np.broadcast_to(5 + Z, (windows, horizon, len(Z))))


def share_inside(forecasts: Forecasts, actual: np.ndarray) -> float:
    return float(((actual >= forecasts.quantiles[..., 9]) & (actual <= forecasts.quantiles[..., 89])).mean())


def test_widened__the_median_stays_and_each_side_has_its_factor() -> None:
    forecasts = normal(2, 3)
    wider = widened(forecasts, Widths(below=2.0, above=0.5))
    np.testing.assert_allclose(wider.quantiles[0, 0, MIDDLE], 5)
    np.testing.assert_allclose(wider.quantiles[..., 9], 5 + 2 * Z[9])
    np.testing.assert_allclose(wider.quantiles[..., 89], 5 + 0.5 * Z[89])
    np.testing.assert_allclose(wider.mean, wider.quantiles.mean(axis=-1) + 5 - forecasts.quantiles.mean(axis=-1))
    np.testing.assert_allclose(widened(forecasts, Widths()).quantiles, forecasts.quantiles)


@pytest.mark.parametrize("horizon", [1, 24])
@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_as_issued__a_shifted_season_is_covered(horizon: int, spread: float) -> None:
    """From the thirtieth day on the errors are half or twice as large, and mostly above."""
    random, hours = np.random.default_rng(0), 24 * 120
    series = 5 + random.normal(size=hours + horizon)
    late = np.arange(len(series)) >= 24 * 30
    series[late] = 5 + 0.3 + spread * (series[late] - 5)
    issue = np.arange(hours)
    actual = series[issue[:, None] + np.arange(horizon)]
    forecasts = normal(hours, horizon)
    issued = as_issued(forecasts, issue, actual)
    shifted = slice(24 * 44, None)  # two weeks later
    assert abs(share_inside(forecasts.at(np.arange(hours)[shifted]), actual[shifted]) - 0.8) > 0.1
    assert share_inside(issued.at(np.arange(hours)[shifted]), actual[shifted]) == pytest.approx(0.8, abs=0.02)
    for side in (actual < issued.quantiles[..., 9], actual > issued.quantiles[..., 89]):
        assert side[shifted].mean() == pytest.approx(0.1, abs=0.02)
    assert crps(issued, actual)[shifted].mean() < crps(forecasts, actual)[shifted].mean()
    # Where the forecasts are right, nothing is lost.
    right = slice(None, 24 * 30 - horizon)
    assert crps(issued, actual)[right].mean() < 1.01 * crps(forecasts, actual)[right].mean()


def test_as_issued__only_what_is_known_by_then_counts() -> None:
    random, horizon, windows = np.random.default_rng(1), 4, 200
    issue, actual = 3 * np.arange(windows), random.normal(size=(windows, 4)) * 3
    before = as_issued(normal(windows, horizon), issue, actual)
    changed = actual.copy()
    at = 100
    # The last window whose first hour is before the issue time of window `at`; all later values change.
    for window in range(windows):
        for lead in range(horizon):
            if issue[window] + lead >= issue[at]:
                changed[window, lead] += 100
    after = as_issued(normal(windows, horizon), issue, changed)
    np.testing.assert_array_equal(after.quantiles[: at + 1], before.quantiles[: at + 1])
    assert not np.array_equal(after.quantiles[at + 2], before.quantiles[at + 2])


def test_as_issued__in_any_order_of_windows() -> None:
    random = np.random.default_rng(2)
    issue, actual = np.arange(100), random.normal(size=(100, 2)) * 2
    expected = as_issued(normal(100, 2), issue, actual)
    order = random.permutation(100)
    mixed = as_issued(normal(100, 2), issue[order], actual[order])
    np.testing.assert_allclose(mixed.quantiles, expected.quantiles[order])


def test_follow__step_by_step_is_the_same_as_at_once() -> None:
    random = np.random.default_rng(3)
    hour, actual = np.arange(50) + 1000, 5 + 2 * random.normal(size=50)
    forecast = np.broadcast_to(5 + Z, (50, len(Z)))
    at_once = follow(Widths(), hour, forecast, actual, since=999)
    step, since = Widths(), 999
    for first, last in ((0, 20), (20, 21), (21, 50)):
        step = follow(step, hour[first:last], forecast[first:last], actual[first:last], since=since)
        since = 999 + last
    assert (step.below, step.above) == pytest.approx((at_once.below, at_once.above))


def test_follow__hours_at_an_atom_tell_nothing() -> None:
    at_night = np.zeros((12, len(Z)))
    widths = follow(Widths(1.5, 0.7), np.arange(12), at_night, np.zeros(12))
    assert (widths.below, widths.above) == pytest.approx((1.5, 0.7))
    # The median is at the atom: only what is above it counts.
    dusk = np.maximum(np.broadcast_to(Z, (12, len(Z))), 0)
    widths = follow(Widths(1.5, 0.7), np.arange(12), dusk, np.zeros(12))
    assert widths.below == pytest.approx(1.5)
    assert widths.above < 0.7


def test_follow__without_values_nothing_changes_and_there_are_limits() -> None:
    nothing = np.zeros(0)
    before = Widths(1.5, 0.7)
    after = follow(before, nothing.astype(int), np.zeros((0, len(Z))), nothing)
    assert (after.below, after.above) == pytest.approx((1.5, 0.7))
    hour = np.arange(3000)
    far = follow(Widths(), hour, np.broadcast_to(5 + Z, (3000, len(Z))), np.full(3000, 1e6))
    assert far.above == pytest.approx(LARGEST)
    assert far.below == pytest.approx(1 / LARGEST)
