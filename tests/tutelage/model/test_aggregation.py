from statistics import NormalDist

import numpy as np
import pytest

from tests.tutelage.model.test_conformal import Z, normal
from tutelage.forecasts import Forecasts, crps
from tutelage.model.aggregation import KNOT_LEVELS, Atom, Members, as_issued, follow_weights

KNOTS = np.array([NormalDist().inv_cdf(level) for level in KNOT_LEVELS])
FIXED = np.array([0.7, 0.3])
STEPS = np.arange(24 * 60)


def alone(forecasts: Forecasts) -> Members:
    return Members({"network": 1.0}, forecasts.mean[None], forecasts.quantiles[None])


def two(windows: int, horizon: int, atom: Atom | None = None) -> Members:
    """Two normal distributions, around 5 and around 7, with the weights 0.7 and 0.3."""
    first, second = normal(windows, horizon), normal(windows, horizon, 7.0)
    return Members(
        {"network": 0.7, "ridge": 0.3},
        np.stack([first.mean, second.mean]),
        np.stack([first.quantiles, second.quantiles]),
        atom,
    )


def of_values(values: int, means: tuple[float, float] = (5.0, 7.0)) -> np.ndarray:
    """Normal distributions around these means at the knots, (members, values, knots)."""
    return np.stack([np.broadcast_to(mean + KNOTS, (values, len(KNOTS))) for mean in means])


def share_inside(forecasts: Forecasts, actual: np.ndarray) -> float:
    return float(((actual >= forecasts.quantiles[..., 9]) & (actual <= forecasts.quantiles[..., 89])).mean())


def test_average__has_the_fixed_weights() -> None:
    fixed = two(3, 2).average()
    np.testing.assert_allclose(fixed.mean, 5.6)
    np.testing.assert_allclose(fixed.quantiles, np.broadcast_to(5.6 + Z, fixed.quantiles.shape))
    other = two(3, 2).average(np.array([0.0, 1.0]))
    np.testing.assert_allclose(other.mean, 7)
    np.testing.assert_allclose(other.quantiles, np.broadcast_to(7 + Z, fixed.quantiles.shape))


def test_average__is_settled_at_an_atom() -> None:
    average = two(3, 2, Atom(5.0, 0.1)).average(FIXED)
    assert average.quantiles.min() == 5.0
    np.testing.assert_allclose(average.quantiles.max(), 5.6 + Z[-1])


def test_follow_weights__who_is_right_counts_for_more_and_the_weights_stay_weights() -> None:
    random = np.random.default_rng(0)
    actual = 7 + random.normal(size=len(STEPS))
    weights = follow_weights(FIXED, FIXED, STEPS, of_values(len(STEPS)), actual)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert weights[1] > 0.65
    # As long again with the first one right.
    back = follow_weights(weights, FIXED, STEPS, of_values(len(STEPS)), actual - 2)
    assert back[0] > 0.75


def test_follow_weights__of_members_that_say_the_same_return_to_the_fixed_ones() -> None:
    start = FIXED[::-1]
    weights = follow_weights(start, FIXED, STEPS, of_values(len(STEPS), (5.0, 5.0)), np.full(len(STEPS), 5.0))
    np.testing.assert_allclose(weights, FIXED, atol=0.01)


def test_follow_weights__a_member_without_weight_stays_without() -> None:
    fixed = np.array([1.0, 0.0])
    weights = follow_weights(fixed, fixed, STEPS, of_values(len(STEPS)), np.full(len(STEPS), 7.0))
    np.testing.assert_array_equal(weights, fixed)


def test_follow_weights__whatever_the_unit() -> None:
    random = np.random.default_rng(2)
    actual, members = 6 + random.normal(size=len(STEPS)), of_values(len(STEPS))
    expected = follow_weights(FIXED, FIXED, STEPS, members, actual)
    np.testing.assert_allclose(follow_weights(FIXED, FIXED, STEPS, 1000 * members, 1000 * actual), expected)


def test_follow_weights__hours_at_an_atom_and_no_hours_tell_nothing() -> None:
    at_night = np.zeros((2, 12, len(KNOTS)))
    np.testing.assert_array_equal(follow_weights(FIXED, FIXED, np.arange(12), at_night, np.zeros(12)), FIXED)
    nothing = np.zeros(0)
    np.testing.assert_array_equal(
        follow_weights(FIXED, FIXED, nothing.astype(int), np.zeros((2, 0, len(KNOTS))), nothing), FIXED
    )


def test_learned_from__differences_that_an_atom_levels_out_are_no_lesson() -> None:
    """At night one member is at 0, the other a little above it: both become the atom."""
    at_night = np.stack([np.zeros((12, 1, len(Z))), np.abs(np.broadcast_to(Z, (12, 1, len(Z)))) / 1000])
    members = Members({"network": 0.7, "ridge": 0.3}, at_night.mean(axis=-1), at_night, Atom(0.0, 0.01))
    learned_from = members.learned_from[:, :, 0]
    np.testing.assert_array_equal(learned_from, 0)
    np.testing.assert_array_equal(follow_weights(FIXED, FIXED, np.arange(12), learned_from, np.zeros(12)), FIXED)


def test_follow_weights__one_value_after_a_gap_counts_as_one() -> None:
    step, actual = np.array([100]), np.array([7.0])
    after_an_hour = follow_weights(FIXED, FIXED, step, of_values(1), actual, since=99)
    after_a_day = follow_weights(FIXED, FIXED, step, of_values(1), actual, since=76)
    assert 0.3 < after_a_day[1] < after_an_hour[1] < 0.4


def test_follow_weights__one_hour_of_hardly_any_width_does_not_decide() -> None:
    fixed = np.array([0.98, 0.02])
    at_dusk = np.stack([np.zeros((1, len(KNOTS))), 5 + KNOTS[None]])
    weights = follow_weights(fixed, fixed, np.array([7]), at_dusk, np.array([5.0]))
    assert 0.02 < weights[1] < 0.1


def test_follow_weights__an_impossible_value_leaves_weights() -> None:
    weights = follow_weights(FIXED, FIXED, STEPS, of_values(len(STEPS)), np.full(len(STEPS), 1e12))
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)


def test_follow_weights__step_by_step_is_the_same_as_at_once() -> None:
    random = np.random.default_rng(3)
    hour, actual, members = np.arange(50) + 1000, 5 + 2 * random.normal(size=50), of_values(50)
    at_once = follow_weights(FIXED, FIXED, hour, members, actual, since=999)
    weights, since = FIXED, 999
    for first, last in ((0, 20), (20, 21), (21, 50)):
        part = slice(first, last)
        weights = follow_weights(weights, FIXED, hour[part], members[:, part], actual[part], since=since)
        since = 999 + last
    np.testing.assert_allclose(weights, at_once)


@pytest.mark.parametrize("horizon", [1, 24])
def test_as_issued__whoever_is_right_in_a_season(horizon: int) -> None:
    """In the first sixty days the values are around 5, then around 7."""
    random, hours = np.random.default_rng(4), 24 * 120
    series = random.normal(size=hours + horizon) + np.where(np.arange(hours + horizon) < hours / 2, 5.0, 7.0)
    issue = np.arange(hours)
    actual = series[issue[:, None] + np.arange(horizon)]
    members = two(hours, horizon)
    loss = crps(as_issued(members, issue, actual), actual).mean(axis=1)
    fixed = crps(as_issued(alone(members.average()), issue, actual), actual).mean(axis=1)
    early, late = slice(24 * 14, hours // 2 - horizon), slice(hours // 2 + 24 * 14, None)
    # The fixed weights are nearer to what is right at first.
    assert loss[early].mean() < 0.98 * fixed[early].mean()
    assert loss[late].mean() < 0.9 * fixed[late].mean()


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
    issued = as_issued(alone(forecasts), issue, actual)
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
    before = as_issued(two(windows, horizon), issue, actual)
    changed = actual.copy()
    at = 100
    # The last window whose first hour is before the issue time of window `at`; all later values change.
    for window in range(windows):
        for lead in range(horizon):
            if issue[window] + lead >= issue[at]:
                changed[window, lead] += 100
    after = as_issued(two(windows, horizon), issue, changed)
    np.testing.assert_array_equal(after.quantiles[: at + 1], before.quantiles[: at + 1])
    assert not np.array_equal(after.quantiles[at + 2], before.quantiles[at + 2])


def test_as_issued__in_any_order_of_windows() -> None:
    random = np.random.default_rng(2)
    issue, actual = np.arange(100), random.normal(size=(100, 2)) * 2
    expected = as_issued(two(100, 2), issue, actual)
    order = random.permutation(100)
    mixed = as_issued(two(100, 2), issue[order], actual[order])
    np.testing.assert_allclose(mixed.quantiles, expected.quantiles[order])
