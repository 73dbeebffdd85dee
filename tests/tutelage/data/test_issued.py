"""Forecasts as they were issued: of each hour what was known in time, in training as in production."""

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.tutelage.data.builders import METER, meter, write_csv
from tutelage.data.dataset import DatasetSpec
from tutelage.data.inputs import issue_time, recent_steps
from tutelage.data.readings import read_readings
from tutelage.data.windows import ends_of
from tutelage.errors import DataError

POWER = METER["columns"][0]
FORECAST = {
    "name": "wind_m_s",
    "source": "wind",
    "role": "known_future",
    "unit": "m/s",
    "minimum": 0,
    "maximum": 99,
}
DAY = "2024-07-01"


def hourly(issued: dict[str, Any] | None = None, **changes: Any) -> DatasetSpec:
    timestamp = METER["timestamp"] | {"format": "%Y-%m-%d %H:%M", "issued": {"column": "issued"} | (issued or {})}
    values = {"raw_step": "PT1H", "quality": {}, "timestamp": timestamp, "columns": [POWER, FORECAST]}
    return meter(**values | changes)


def wind(table: pl.DataFrame, series: str = "meter") -> dict[str, float]:
    rows = table.filter(pl.col("series_id") == series).sort("time_utc")
    return {f"{time:%d %H}": value for time, value in rows.select("time_utc", "wind_m_s").iter_rows()}


def test_as_issued__the_last_issue_a_horizon_before_its_hour(tmp_path: Path) -> None:
    readings = write_csv(tmp_path / "load.csv", "time,power", f"{DAY} 06:00,1", f"{DAY} 07:00,2")
    forecasts = write_csv(
        tmp_path / "weather.csv",
        "issued,time,wind",
        *(f"{DAY} 00:00,{DAY} {hour:02d}:00,{10 + hour}" for hour in range(6, 9)),
        *(f"{DAY} 04:00,{DAY} {hour:02d}:00,{20 + hour}" for hour in range(6, 10)),
    )
    files, spec = [readings, forecasts], hourly()
    assert wind(read_readings(files, spec, ahead_hours=2)) == {"01 06": 26, "01 07": 27, "01 08": 28, "01 09": 29}
    assert wind(read_readings(files, spec, ahead_hours=4)) == {"01 06": 16, "01 07": 17, "01 08": 28, "01 09": 29}
    assert wind(read_readings(files, spec, ahead_hours=7)) == {"01 06": None, "01 07": 17, "01 08": 18}
    late = hourly({"available_after": "PT3H"})
    assert wind(read_readings(files, late, ahead_hours=1)) == {"01 06": 16, "01 07": 17, "01 08": 28, "01 09": 29}
    with pytest.raises(DataError, match=r"forecasts .* are read for a horizon, and none is given$"):
        read_readings(files, spec)


def test_as_issued__rows_that_hold_readings_and_forecasts(tmp_path: Path) -> None:
    """V6: two rows an hour, a forecast issued on D−2 and again on D−1."""
    file = write_csv(
        tmp_path / "both.csv",
        "issued,time,power,wind",
        "2024-06-29 10:00,2024-07-01 06:00,5,1",
        "2024-06-30 10:00,2024-07-01 06:00,5,2",
        "2024-06-29 10:00,2024-07-01 07:00,6,3",
        "2024-06-30 10:00,2024-07-01 07:00,6,4",
        "2024-06-30 10:00,2024-07-01 08:00,,9",
    )
    for ahead, expected in ((1, [2, 4, 9]), (20, [2, 4, 9]), (21, [1, 4, 9]), (22, [1, 3, 9]), (24, [1, 3, None])):
        table = read_readings([file], hourly(), ahead_hours=ahead)
        assert table["power_kw"].to_list() == [5, 6, None][: table.height], ahead
        assert table["wind_m_s"].to_list() == [value for value in expected if value is not None], ahead


def test_as_issued__readings_that_differ_are_left_to_the_rules(tmp_path: Path) -> None:
    rows = (f"2024-06-{day} 10:00,{DAY} 06:00,{power},1" for day, power in ((29, 5), (30, 6)))
    file = write_csv(tmp_path / "both.csv", "issued,time,power,wind", *rows)
    assert read_readings([file], hourly(), ahead_hours=1)["power_kw"].to_list() == [5, 6]


def test_as_issued__an_issue_that_lacks_the_hour_leaves_the_one_before(tmp_path: Path) -> None:
    readings = write_csv(tmp_path / "load.csv", "time,power", f"{DAY} 06:00,1")
    rows = (f"{DAY} 00:00,{DAY} 06:00,3", f"{DAY} 02:00,{DAY} 06:00,", f"{DAY} 03:00,{DAY} 07:00,4")
    forecasts = write_csv(tmp_path / "weather.csv", "issued,time,wind", *rows)
    assert wind(read_readings([readings, forecasts], hourly(), ahead_hours=1)) == {"01 06": 3, "01 07": 4}


def test_as_issued__of_all_series_and_of_one(tmp_path: Path) -> None:
    spec = hourly(series_column="home")
    rows = (f"{DAY} 06:00,1,a", f"{DAY} 06:00,2,b")
    readings = write_csv(tmp_path / "load.csv", "time,power,home", *rows)
    of_all = write_csv(tmp_path / "weather.csv", "issued,time,wind", f"{DAY} 00:00,{DAY} 06:00,3")
    table = read_readings([readings, of_all], spec, ahead_hours=1)
    assert (wind(table, "a"), wind(table, "b")) == ({"01 06": 3}, {"01 06": 3})
    rows = (f"{DAY} 00:00,{DAY} 06:00,3,a", f"{DAY} 00:00,{DAY} 06:00,4,b", f"{DAY} 00:00,{DAY} 06:00,5,c")
    of_each = write_csv(tmp_path / "weather-by-home.csv", "issued,time,wind,home", *rows)
    table = read_readings([readings, of_each], spec, ahead_hours=1)
    assert (wind(table, "a"), wind(table, "b"), wind(table, "c")) == ({"01 06": 3}, {"01 06": 4}, {})
    both = read_readings([readings, of_all, of_each], spec, ahead_hours=1)
    assert both.height == 2
    assert (wind(both, "a"), wind(both, "b")) == ({"01 06": 3}, {"01 06": 4}), "its own forecast before that of all"
    by_file = hourly(series_from="file")
    table = read_readings([readings, of_all], by_file, ahead_hours=1)
    assert wind(table, "load") == {"01 06": 3}
    assert table["series_id"].unique().to_list() == ["load"]


def test_as_issued__a_value_holds_for_its_step(tmp_path: Path) -> None:
    readings = write_csv(tmp_path / "load.csv", "time,power", *(f"{DAY} 06:{minute},1" for minute in ("00", "30")))
    forecasts = write_csv(tmp_path / "weather.csv", "issued,time,wind", f"{DAY} 00:00,{DAY} 06:00,3")
    spec = hourly({"step": "PT1H"}, raw_step="PT30M")
    table = read_readings([readings, forecasts], spec, ahead_hours=1)
    assert table["wind_m_s"].to_list() == [3, 3]
    ends = spec.model_copy(update={"timestamp": spec.timestamp.model_copy(update={"marks": "end"})})
    readings = write_csv(tmp_path / "load.csv", "time,power", f"{DAY} 05:30,1", f"{DAY} 06:00,1")
    table = read_readings([readings, forecasts], ends, ahead_hours=1)
    assert [f"{time:%H:%M}" for time in table["time_utc"]] == ["05:00", "05:30"]
    assert table["wind_m_s"].to_list() == [3, 3]


def test_as_issued__on_a_clock_that_goes_back(tmp_path: Path) -> None:
    """Each of two issues has the repeated hour twice; an issue in it counts as the later one."""
    spec = hourly()
    paris = spec.timestamp.model_copy(update={"timezone": "Europe/Paris"})
    spec = spec.model_copy(update={"timestamp": paris})
    hours = ("01:00", "02:00", "02:00", "03:00")
    readings = write_csv(tmp_path / "load.csv", "time,power", *(f"2024-10-27 {hour},1" for hour in hours))
    issues = ("2024-10-26 12:00", "2024-10-26 18:00")
    rows = [
        f"{issued},2024-10-27 {hour},{10 * number + place}"
        for number, issued in enumerate(issues)
        for place, hour in enumerate(hours)
    ]
    rows.append("2024-10-27 02:30,2024-10-27 03:00,99")
    forecasts = write_csv(tmp_path / "weather.csv", "issued,time,wind", *rows)
    table = read_readings([readings, forecasts], spec, ahead_hours=1)
    assert wind(table) == {"26 23": 10, "27 00": 11, "27 01": 12, "27 02": 13}


def test_as_issued__production_sees_what_training_saw(tmp_path: Path) -> None:
    spec, start = hourly(), dt.datetime(2024, 7, 1)
    times = [start + dt.timedelta(hours=hour) for hour in range(24 * 12)]
    readings = write_csv(tmp_path / "load.csv", "time,power", *(f"{time:%Y-%m-%d %H:%M},1" for time in times[:-24]))
    rows = [
        f"{issued:%Y-%m-%d %H:%M},{time:%Y-%m-%d %H:%M},{(issued - start) / dt.timedelta(hours=1) % 97}"
        for issued in times[::6]
        for time in times
        if dt.timedelta(0) <= time - issued <= dt.timedelta(hours=40)
    ]
    files = [readings, write_csv(tmp_path / "weather.csv", "issued,time,wind", *rows)]
    trained = read_readings(files, spec, ahead_hours=24)
    seen = wind(trained)
    for hours_ago in (0, 5, 30):
        now = times[-24].replace(tzinfo=dt.UTC) - dt.timedelta(hours=hours_ago)
        recent = read_readings(files, spec, as_of=now + dt.timedelta(hours=24), ahead_hours=24)
        assert issue_time(recent, spec, now) == now
        table = recent_steps(recent, spec, now, lookback_hours=24, complete_hours=24, horizon_hours=24)
        ahead = table.filter(pl.col("time_utc") >= now)
        assert ahead.height == 24
        assert wind(ahead) == {hour: seen[hour] for hour in wind(ahead)}
        assert all(value is not None for value in wind(ahead).values())
    _, end = ends_of(trained, spec)
    assert end == times[-24].replace(tzinfo=dt.UTC), "what is known ahead of the readings is no end of them"


@pytest.mark.parametrize(
    ("header", "row", "sentence"),
    [
        (
            "issued,time,wind",
            "soon,2024-07-01 06:00,3",
            r"column 'issued' has no time in the format .* in 1 rows",
        ),
        ("issued,time,win", f"{DAY} 00:00,{DAY} 06:00,3", r"^weather\.csv: column 'wind' is missing; .* mean 'win'\?$"),
        ("isued,time,wind", f"{DAY} 00:00,{DAY} 06:00,3", r"^weather\.csv: column 'power' is missing"),
    ],
)
def test_as_issued__what_is_wrong_is_named(header: str, row: str, sentence: str, tmp_path: Path) -> None:
    readings = write_csv(tmp_path / "load.csv", "time,power", f"{DAY} 06:00,1")
    with pytest.raises(DataError, match=sentence):
        read_readings([readings, write_csv(tmp_path / "weather.csv", header, row)], hourly(), ahead_hours=1)


def test_as_issued__without_readings(tmp_path: Path) -> None:
    forecasts = write_csv(tmp_path / "weather.csv", "issued,time,wind", f"{DAY} 00:00,{DAY} 06:00,3")
    with pytest.raises(DataError, match=r"^weather\.csv: there are forecasts only; no file has column 'power'$"):
        read_readings([forecasts], hourly(), ahead_hours=1)


@pytest.mark.parametrize(
    ("issued", "changes", "sentence"),
    [
        ({}, {"columns": [POWER]}, "no column has the role known_future"),
        ({}, {"event_hold": "PT1H"}, "can't go together with step_changes or event_hold"),
        ({"step": "PT90M"}, {}, "1:30:00 is not a multiple of raw_step 1:00:00"),
        ({"available_after": "-PT1H"}, {}, "available_after"),
    ],
)
def test_issued__what_a_spec_must_not_say(issued: dict[str, Any], changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        hourly(issued, **changes)
