import datetime as dt

import pytest

from tutelage.forecasts import Contender
from tutelage.judge.backtest import (
    Overall,
    Period,
    backtest_rows,
    common_contenders,
    common_references,
    compare_overall,
    overall_floor,
    period_ends,
)
from tutelage.judge.comparison import Gain

END = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
STUDENT, TWIN, UNPRIVILEGED, CHAMPION = (
    *(Contender.STUDENT, Contender.TWIN),
    *(Contender.UNPRIVILEGED, Contender.CHAMPION),
)


def period(end: dt.datetime, student: float, twin: float, **others: float) -> Period:
    """A period of 30 days, with gains over the twin and, where there are any, over unprivileged students."""
    crps = {STUDENT: student, TWIN: twin} | {Contender(name): value for name, value in others.items()}
    gains = {
        name: Gain(estimate=1 - student / crps[name], low=1 - student / crps[name] - 0.1, high=0.9, p=0.5, windows=9)
        for name in (TWIN, UNPRIVILEGED)
        if name in crps
    }
    return Period(end - 30 * DAY, end, crps, gains)


@pytest.fixture
def periods() -> list[Period]:
    """The champion and unprivileged students are there in one period only."""
    return [period(END - 30 * DAY, 0.2, 0.1, champion=0.2, unprivileged=0.3), period(END, 0.3, 0.4)]


def test_period_ends__touch_and_do_not_overlap() -> None:
    assert period_ends(END, origins=3, period_days=10) == [END - 20 * DAY, END - 10 * DAY, END]


def test_common_contenders__leaves_out_what_is_not_in_every_period(periods: list[Period]) -> None:
    assert common_contenders(periods) == [STUDENT, TWIN]
    assert common_contenders(periods[:1]) == [STUDENT, TWIN, CHAMPION, UNPRIVILEGED]


def test_common_references__are_those_with_a_gain_in_every_period(periods: list[Period]) -> None:
    assert common_references(periods) == [TWIN]
    assert common_references(periods[:1]) == [TWIN, UNPRIVILEGED]


def test_backtest_rows__has_a_row_a_period_in_order(periods: list[Period]) -> None:
    rows = backtest_rows(periods)
    assert [row["end_utc"] for row in rows] == [END - 30 * DAY, END]
    assert [row["origin_utc"] for row in rows] == [END - 60 * DAY, END - 30 * DAY]
    assert [row["student_crps"] for row in rows] == [0.2, 0.3]
    assert [row["gain_over_twin_low"] for row in rows] == pytest.approx([-1.1, 0.15])
    assert list(rows[0]) == [
        *("origin_utc", "end_utc", "student_crps", "twin_crps"),
        *("gain_over_twin_estimate", "gain_over_twin_low", "gain_over_twin_high"),
    ]


def test_backtest_rows__hold_the_gain_over_unprivileged_students_where_there_are_any(periods: list[Period]) -> None:
    [row] = backtest_rows(periods[:1])
    assert row["gain_over_unprivileged_estimate"] == pytest.approx(1 / 3)
    assert row["champion_crps"] == 0.2


def figures(overall: Overall) -> tuple[Contender, float, int]:
    return overall.reference, round(overall.gain, 9), overall.won


def test_compare_overall__is_by_the_mean_losses(periods: list[Period]) -> None:
    """Not the mean of the gains, (-1 + 0.25) / 2."""
    assert figures(compare_overall(periods, TWIN)) == (TWIN, 0.0, 1)
    assert figures(compare_overall(periods[:1], UNPRIVILEGED)) == (UNPRIVILEGED, round(1 / 3, 9), 1)
    assert compare_overall([*periods, period(END, 0.3, 0.3)], TWIN).won == 1  # a tie is no win


def test_overall_floor__is_the_simple_forecast_that_is_best_over_all_periods() -> None:
    """Ridge is the best of the second period alone, and the same hour is missing in the first."""
    periods = [
        period(END - 30 * DAY, 0.5, 0.5, chosen=0.3, ridge=0.9, last_value=0.5),
        period(END, 0.5, 0.5, chosen=0.5, ridge=0.3, last_value=0.4, same_hour_7d=0.1),
    ]
    assert figures(overall_floor(periods)) == (Contender.LAST_VALUE, round(1 - 0.8 / 0.9, 9), 1)
    assert figures(overall_floor(periods[1:])) == (Contender.SAME_HOUR_7D, -4.0, 0)
