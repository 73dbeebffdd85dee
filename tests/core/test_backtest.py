import datetime as dt

import polars as pl
import pytest

from tutelage.backtest import backtest_table, forecasts_of, overall_gain, rivals_of, stretch_ends

END = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def figures(student: float, twin: float, **more: float) -> dict[str, float]:
    gain = {f"gain_vs_twin.{name}": 1 - student / twin for name in ("estimate", "low", "high", "p", "windows")}
    return {"student.crps": student, "twin.crps": twin, "student.mae": 1.0, "validation.twin.crps": 9.0} | gain | more


@pytest.fixture
def table() -> pl.DataFrame:
    """Given in no order; the champion is there at one origin only."""
    return backtest_table(
        {END: figures(0.3, 0.4), END - 30 * DAY: figures(0.2, 0.1, **{"champion.crps": 0.2})}, stretch_days=30
    )


def test_stretch_ends__touch_and_do_not_overlap() -> None:
    ends = stretch_ends(END, origins=3, stretch_days=10)
    assert ends == [END - 20 * DAY, END - 10 * DAY, END]


def test_backtest_table__has_a_row_a_stretch_in_order(table: pl.DataFrame) -> None:
    assert table["end_utc"].to_list() == [END - 30 * DAY, END]
    assert table["origin_utc"].to_list() == [END - 60 * DAY, END - 30 * DAY]
    assert table["student_crps"].to_list() == [0.2, 0.3]
    assert table["gain_vs_twin_low"].to_list() == pytest.approx([-1.0, 0.25])


def test_backtest_table__leaves_out_what_is_not_at_every_origin(table: pl.DataFrame) -> None:
    assert forecasts_of(table) == ["student", "twin"]


def test_overall_gain__is_that_of_the_mean_losses(table: pl.DataFrame) -> None:
    """Not the mean of the gains, (-1 + 0.25) / 2."""
    assert overall_gain(table, "twin") == pytest.approx(1 - 0.5 / 0.5)


def test_backtest_table__holds_the_gain_over_the_control_where_there_is_one(table: pl.DataFrame) -> None:
    assert rivals_of(table) == ["twin"]
    control = {"no_privilege.crps": 0.4} | {f"gain_vs_no_privilege.{name}": 0.5 for name in ("estimate", "low", "high")}
    both = backtest_table({END: figures(0.2, 0.3, **control)}, stretch_days=30)
    assert rivals_of(both) == ["twin", "no_privilege"]
    assert forecasts_of(both) == ["no_privilege", "student", "twin"]
    assert overall_gain(both, "no_privilege") == pytest.approx(0.5)
