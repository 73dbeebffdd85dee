import datetime as dt

import numpy as np
import pytest
from scipy.stats import t

from benchmarks.promotion import performance
from tutelage.judge.promotion import (
    COSINES,
    LEAST_WEEKS,
    MISTAKES_A_YEAR,
    WEEK_HOURS,
    WeeklyTest,
    allowed_p,
    cosine_p,
    weekly_test,
)

DAY = dt.timedelta(days=1)


def hourly(by_week: list[float], *, hours: int = WEEK_HOURS) -> tuple[np.ndarray, np.ndarray]:
    """Losses that are by_week in each hour of a week, and the hours of issue, the first of each week."""
    hour = np.concatenate([week * WEEK_HOURS + np.arange(hours) for week in range(len(by_week))]) + 400_000
    return np.repeat(by_week, hours), hour


def test_cosine_p__of_three_cosines_is_a_t_of_three_degrees() -> None:
    weekly = np.random.default_rng(3).normal(0.4, 1, 17)
    place = (np.arange(17) + 0.5) / 17
    projected = [np.sqrt(2 / 17) * (np.cos(np.pi * number * place) * weekly).sum() for number in (1, 2, 3)]
    variance = np.square(projected).mean()
    assert cosine_p(weekly) == pytest.approx(t.sf(np.sqrt(17) * weekly.mean() / np.sqrt(variance), COSINES))
    assert cosine_p(-weekly) == pytest.approx(1 - cosine_p(weekly))
    assert cosine_p(1000 * weekly) == pytest.approx(cosine_p(weekly))


@pytest.mark.parametrize(("memory", "months"), [(0.0, 0.0), (0.3, 0.0), (0.0, 1.0), (0.3, 1.0)])
@pytest.mark.parametrize("weeks", [8, 17])
def test_cosine_p__holds_where_errors_last(memory: float, months: float, weeks: int) -> None:
    """At the level 2.5 %, of which a t-test on seventeen weeks takes 12 to 15 % where months favour a network."""
    rng = np.random.default_rng(0)
    found = sum(cosine_p(performance(rng, weeks, memory=memory, months=months)) <= 0.025 for _ in range(4000))
    assert found / 4000 < (0.045 if weeks == 17 else 0.10)


def test_cosine_p__without_any_variance() -> None:
    assert (cosine_p(np.full(9, 0.1)), cosine_p(np.zeros(9))) == (pytest.approx(0, abs=1e-9), 1.0)


def test_weekly_test__is_that_of_the_weeks_means() -> None:
    by_week = np.random.default_rng(0).normal(1, 0.1, 17)
    losses, hour = hourly(list(by_week))
    noise = np.tile(np.arange(WEEK_HOURS) - (WEEK_HOURS - 1) / 2, 17)
    expected = cosine_p(1.05 - by_week)
    for candidate in (losses, losses + noise):
        tested = weekly_test(candidate, np.full(len(losses), 1.05), hour)
        assert (tested.weeks, tested.p) == (17, pytest.approx(expected))


def test_weekly_test__leaves_out_weeks_with_few_hours_and_takes_several_series() -> None:
    losses, hour = hourly([1.0, 1.1, 0.9] * 3)
    few = (hour - hour[0]) // WEEK_HOURS == 4
    kept = ~few | ((hour - hour[0]) % WEEK_HOURS < 80)
    reference = np.full(kept.sum(), 1.2)
    fewer = weekly_test(losses[kept], reference, hour[kept])
    assert fewer.weeks == 8
    twice = [np.concatenate([each, each]) for each in (losses[kept], reference, hour[kept])]
    assert weekly_test(*twice) == fewer


def test_weekly_test__of_few_weeks_decides_nothing() -> None:
    losses, hour = hourly([1.0] * (LEAST_WEEKS - 1))
    assert weekly_test(losses, losses + 1, hour) == WeeklyTest(LEAST_WEEKS - 1, 1.0)


def test_allowed_p__of_comparisons_sums_to_no_more_than_a_year_may_have() -> None:
    for days in (1, 7, 30, 91, 365):
        assert allowed_p(days * DAY) * 365 / days == pytest.approx(MISTAKES_A_YEAR)
    assert allowed_p(1000 * DAY) == MISTAKES_A_YEAR
    assert allowed_p(0 * DAY) == allowed_p(-5 * DAY) == 0
