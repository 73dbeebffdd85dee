"""Hours begin where the local clock shows :00, also where that is half past in UTC."""

import datetime as dt
import zoneinfo
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.tutelage.data.builders import HOUR, METER, START, meter, table_of, write_csv
from tutelage.data.calendar import calendar_features
from tutelage.data.dataset import DatasetSpec, Timestamp
from tutelage.data.events import regular_readings
from tutelage.data.inputs import issue_time, recent_steps
from tutelage.data.quality import clean, off_grid_time
from tutelage.data.readings import read_readings
from tutelage.data.resample import readings_within, student_table
from tutelage.data.windows import make_panel

ODD = {
    "Asia/Kolkata": 30,
    "Asia/Kathmandu": 15,
    "America/St_Johns": 30,
    "Pacific/Chatham": 15,
    "Australia/Adelaide": 30,
}
"""Zones, and the minute of the UTC hour at which their hours begin."""
TARGET = METER["columns"][0]


def on_clock(zone: str, raw_step: str = "PT1H", **changes: Any) -> DatasetSpec:
    timestamp = {"columns": ["time"], "timezone": zone} | changes
    return meter(timestamp=timestamp, raw_step=raw_step, columns=[TARGET], calendar={"timezone": zone}, quality={})


def read_table(folder: Path, spec: DatasetSpec, clock: list[str]) -> pl.DataFrame:
    """The hourly table of rows that a local clock wrote, with 0.5, 1, 1.5, … as values."""
    rows = [f"{time}:00,{value / 2}" for value, time in enumerate(clock, start=1)]
    table = read_readings([write_csv(folder / "meter.csv", "time,power", *rows)], spec)
    assert not table.select(off_grid_time(spec).any()).item()
    return student_table(clean(table, spec), spec)


@pytest.mark.parametrize(("zone", "minute"), ODD.items())
@pytest.mark.parametrize("day", ["2024-01-15", "2024-07-15"])
@pytest.mark.bad_input
def test_hours__are_those_of_the_local_clock(zone: str, minute: int, day: str, tmp_path: Path) -> None:
    spec = on_clock(zone)
    hours = read_table(tmp_path, spec, [f"{day} {hour:02}:00" for hour in range(24)])
    assert hours["power_kw"].to_list() == [value / 2 for value in range(1, 25)]
    assert set(hours["time_utc"].dt.minute()) == {minute}
    assert calendar_features(hours["time_utc"], spec.calendar)["hour"].to_list() == list(range(24))
    midnight = dt.datetime.fromisoformat(day).replace(tzinfo=zoneinfo.ZoneInfo(zone))
    assert hours["time_utc"][0] == midnight


def test_hours__hold_the_readings_of_the_local_hour(tmp_path: Path) -> None:
    spec = on_clock("Asia/Kolkata", "PT15M")
    clock = [f"2024-07-15 {hour:02}:{minute:02}" for hour in (0, 1) for minute in (0, 15, 30, 45)]
    hours = read_table(tmp_path, spec, clock)
    assert hours["power_kw"].to_list() == [1.25, 3.25]
    table = clean(read_readings([tmp_path / "meter.csv"], spec), spec)
    assert readings_within(table, hours, spec).tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2


def test_hours__of_rows_on_change_are_those_of_the_local_clock() -> None:
    spec = on_clock("Asia/Kolkata").model_copy(update={"event_hold": 3 * HOUR})
    begin = START + dt.timedelta(minutes=30)
    table = table_of(spec, [1.0, 3.0, 5.0], times=[begin, begin + HOUR / 2, begin + 2 * HOUR])
    readings = regular_readings(table, spec, 3 * HOUR)
    assert readings.select("time_utc", "power_kw").rows() == [(begin, 2.0), (begin + HOUR, 3.0)]


@pytest.mark.parametrize(
    ("zone", "hours", "minute"),
    [
        ("Asia/Kolkata", "utc", 0),
        ("Europe/Paris", "clock", 0),
        ("UTC", "clock", 0),
        ("Australia/Lord_Howe", "clock", 0),  # its hours begin at :30 UTC in winter alone
    ],
)
def test_begin_minute__is_that_of_the_utc_hour(zone: str, hours: Any, minute: int) -> None:
    assert Timestamp(columns=("t",), timezone=zone, hours=hours).begin_minute == minute


@pytest.mark.bad_input
def test_hours__of_utc_are_off_the_grid_of_the_local_clock_and_the_other_way_round() -> None:
    local, by_utc = on_clock("Asia/Kolkata"), on_clock("Asia/Kolkata", hours="utc")
    for spec, times in ((by_utc, [START, START + HOUR]), (local, [START + HOUR / 2, START + 3 * HOUR / 2])):
        other = local if spec is by_utc else by_utc
        table = table_of(spec, [1.0, 2.0], times=times)
        assert not table.select(off_grid_time(spec).any()).item()
        assert table.select(off_grid_time(other).all()).item()


def test_issue_time__is_a_full_hour_of_the_local_clock() -> None:
    spec = on_clock("Asia/Kolkata")
    begin = START + HOUR / 2
    table = table_of(spec, [1.0] * 72, times=[begin + hour * HOUR for hour in range(72)])
    assert issue_time(table, spec, None) == begin + 72 * HOUR
    assert issue_time(table, spec, START + 5 * HOUR) == begin + 4 * HOUR
    recent = recent_steps(table, spec, begin + 48 * HOUR, lookback_hours=24, complete_hours=24, horizon_hours=2)
    assert recent["time_utc"].to_list() == [begin + hour * HOUR for hour in range(24, 48)]
    assert not recent["missing"].any()


def test_panel__knows_the_times_of_its_hours() -> None:
    spec = on_clock("Asia/Kathmandu")
    begin = START + HOUR / 4
    table = table_of(spec, [1.0, 2.0], times=[begin, begin + HOUR])
    hours = student_table(clean(table, spec), spec)
    panel = make_panel(hours, readings_within(table, hours, spec), spec)
    assert [panel.grid.time(int(step)) for step in panel.step] == [begin, begin + HOUR]


def test_step_changes__begin_with_an_hour_of_the_local_clock() -> None:
    timestamp = {"columns": ["time"], "timezone": "Asia/Kolkata"}
    change = {"since": START + HOUR / 2, "raw_step": "PT15M"}
    assert meter(timestamp=timestamp, raw_step="PT1H", step_changes=[change]).step_changes[0].since == START + HOUR / 2
    with pytest.raises(ValueError, match="no student_step begins on the clock Asia/Kolkata"):
        meter(timestamp=timestamp, raw_step="PT1H", step_changes=[change | {"since": START}])
