import datetime as dt

import polars as pl
import pytest

from tests.tutelage.data.builders import HOUR, START, meter, meter_with_plan, plan_after, random_readings
from tutelage.data.dataset import DatasetSpec
from tutelage.data.inputs import issue_time, recent_steps

DAYS = 9
ISSUED = START + dt.timedelta(days=DAYS)
LOOKBACK = 24


def readings(spec: DatasetSpec, *, days: int = DAYS) -> pl.DataFrame:
    return random_readings(spec, days=days)


def without(table: pl.DataFrame, *steps_before: int) -> pl.DataFrame:
    """The readings without these hours, counted back from the issue time."""
    gone = [ISSUED - back * HOUR for back in steps_before]
    return table.filter(~pl.col("time_utc").dt.truncate("1h").is_in(gone))


def hours(table: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    return recent_steps(table, spec, ISSUED, lookback_hours=LOOKBACK, complete_hours=LOOKBACK, horizon_hours=3)


def test_recent_hours__whole_ones_are_their_means() -> None:
    spec = meter()
    table = readings(spec)
    recent = hours(table, spec)
    expected = table.group_by(pl.col("time_utc").dt.truncate("1h")).agg(pl.col("power_kw").mean()).sort("time_utc")
    assert recent.columns == ["series_id", "time_utc", "power_kw", "indoor_c", "missing", "filled"]
    assert recent["power_kw"].to_list() == pytest.approx(expected["power_kw"].tail(LOOKBACK).to_list())
    assert not recent["missing"].any()


@pytest.mark.parametrize(("rule", "source"), [("season", 24), ("last", 1)])
def test_recent_hours__a_late_hour_is_filled_by_the_rule(rule: str, source: int) -> None:
    spec = meter(serving={"missing_hours": rule})
    whole = recent_steps(readings(spec), spec, ISSUED, lookback_hours=48, complete_hours=48, horizon_hours=3)[
        "power_kw"
    ]
    recent = hours(without(readings(spec), 1), spec)
    assert recent["missing"].to_list() == recent["filled"].to_list() == [False] * (LOOKBACK - 1) + [True]
    assert recent["power_kw"][-1] == whole[-1 - source]


def test_recent_hours__two_seasons_back_where_one_is_missing_too() -> None:
    spec = meter()
    whole = recent_steps(readings(spec), spec, ISSUED, lookback_hours=72, complete_hours=72, horizon_hours=3)[
        "power_kw"
    ]
    assert hours(without(readings(spec), 5, 29), spec)["power_kw"][-5] == whole[-53]


def test_recent_hours__refuse_leaves_it_null() -> None:
    spec = meter(serving={"missing_hours": "refuse"})
    last = hours(without(readings(spec), 2), spec).row(-2, named=True)
    assert (last["power_kw"], last["missing"], last["filled"]) == (None, True, False)


def test_recent_hours__a_series_without_recent_readings_is_all_missing() -> None:
    spec = meter(serving={"missing_hours": "refuse"})
    old = readings(spec).filter(pl.col("time_utc") < START + HOUR)
    recent = recent_steps(old, spec, ISSUED, lookback_hours=LOOKBACK, complete_hours=LOOKBACK, horizon_hours=3)
    assert recent["missing"].to_list() == [True] * LOOKBACK


def test_recent_hours__nothing_from_the_issue_time_on_matters() -> None:
    spec = meter()
    longer, shorter = readings(spec, days=DAYS + 1), readings(spec, days=DAYS + 1)
    changed = pl.when(pl.col("time_utc") >= ISSUED).then(14.0).otherwise("power_kw").alias("power_kw")
    assert hours(longer, spec).equals(hours(shorter.with_columns(changed), spec))


def test_recent_hours__what_is_known_ahead_follows() -> None:
    spec = meter_with_plan()
    recent = hours(readings(spec, days=DAYS + 1), spec)
    assert recent.height == LOOKBACK + 3
    assert recent["power_kw"].is_null().to_list() == [False] * LOOKBACK + [True] * 3
    assert recent["planned_c"].null_count() == 0


def test_issue_time__floors_as_of_or_takes_the_end_of_the_readings() -> None:
    spec = meter()
    table = readings(spec)
    assert issue_time(table, spec, None) == ISSUED
    assert issue_time(table, spec, ISSUED + dt.timedelta(minutes=59)) == ISSUED
    assert issue_time(table.head(-1), spec, None) == ISSUED - HOUR


def test_issue_time__a_plan_of_the_coming_days_is_no_reading() -> None:
    spec = meter_with_plan()
    table = readings(spec)
    ahead = plan_after(table.tail(48 * 60), spec, dt.timedelta(days=2))
    assert issue_time(pl.concat([table, ahead]), spec, None) == ISSUED


def test_recent_hours__a_gap_in_what_is_known_ahead_is_none_in_the_past() -> None:
    """No model sees it there, and training takes such windows."""
    spec = meter_with_plan()
    table = readings(spec, days=DAYS + 1)
    gone = pl.col("time_utc").is_between(ISSUED - 20 * HOUR, ISSUED - 8 * HOUR, closed="left")
    gap = table.with_columns(pl.when(~gone).then("planned_c").alias("planned_c"))
    recent = hours(gap, spec)
    assert not recent["missing"].any()
    assert recent["planned_c"].null_count() == 12
    assert recent.drop("planned_c").equals(hours(table, spec).drop("planned_c"))
