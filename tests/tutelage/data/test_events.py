"""Rows on change only."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from tests.tutelage.data.builders import HOUR, METER, MINUTE, START, meter, write_csv
from tutelage.data.dataset import DatasetSpec
from tutelage.data.quality import clean
from tutelage.data.readings import read_readings
from tutelage.data.resample import student_table

QUARTER = 15 * MINUTE
SECOND = dt.timedelta(seconds=1)


def events_spec(hold: str = "PT1H", **changes: Any) -> DatasetSpec:
    return meter(**{"raw_step": "PT15M", "event_hold": hold, "columns": METER["columns"][:1], "quality": {}} | changes)


def read_events(
    folder: Path, spec: DatasetSpec, *events: tuple[dt.timedelta, float | str], as_of: dt.datetime | None = None
) -> dict[dt.timedelta, float | None]:
    rows = [f"{START + after:%Y-%m-%d %H:%M:%S},{value}" for after, value in events]
    table = read_readings([write_csv(folder / "meter.csv", "time,power", *rows)], spec, as_of=as_of)
    return {time - START: value for time, value in table.select("time_utc", "power_kw").rows()}


def test_events__a_step_has_the_mean_weighted_by_time(tmp_path: Path) -> None:
    readings = read_events(tmp_path, events_spec(), (0 * SECOND, 1), (5 * MINUTE, 4), (45 * MINUTE, 0), (HOUR, 7))
    assert readings == {0 * QUARTER: 3, QUARTER: 4, 2 * QUARTER: 4, 3 * QUARTER: 0}


def test_events__odd_seconds_and_a_value_that_holds_no_longer_than_the_limit(tmp_path: Path) -> None:
    """The case T8: a row at 00:00:03, at 00:07:41, and none for two hours."""
    odd = [(3 * SECOND, 2), (7 * MINUTE + 41 * SECOND, 5), (130 * MINUTE, 1), (160 * MINUTE, 1)]
    readings = read_events(tmp_path, events_spec(), *odd)
    held = (7 * 60 + 38, 15 * 60 - 461)
    assert readings[0 * QUARTER] == pytest.approx((2 * held[0] + 5 * held[1]) / sum(held))
    assert [readings[n * QUARTER] for n in (1, 2, 3)] == [5, 5, 5]
    assert [readings[n * QUARTER] for n in (4, 5, 6, 7, 8)] == [None] * 5, "five held until 01:07:41"
    assert readings[9 * QUARTER] == 1
    assert max(readings) == 9 * QUARTER, "the step from 02:30 has not ended"
    longer = read_events(tmp_path, events_spec("PT3H"), *odd)
    assert longer[7 * QUARTER] == 5
    assert longer[8 * QUARTER] == pytest.approx((5 * 10 + 1 * 5) / 15)


def test_events__become_hours_without_a_finding(tmp_path: Path) -> None:
    spec = events_spec(quality={"missing_value": {"tolerance": 0}})
    rows = [f"{START + minute * MINUTE:%Y-%m-%d %H:%M:%S},{minute // 60}" for minute in range(7, 245, 3)]
    readings = read_readings([write_csv(tmp_path / "meter.csv", "time,power", *rows)], spec)
    hours = student_table(clean(readings, spec), spec)
    assert hours["power_kw"].to_list()[1:] == pytest.approx([1, 2, 3], abs=0.05)
    assert hours["power_kw"][0] is None, "only from 00:07 on"


def test_events__at_an_earlier_time_later_rows_count_for_nothing(tmp_path: Path) -> None:
    rows = [(n * 7 * MINUTE, float(n % 5)) for n in range(60)]
    whole = read_events(tmp_path, events_spec(), *rows)
    early = read_events(tmp_path, events_spec(), *rows, as_of=START + 3 * HOUR)
    assert max(early) == 3 * HOUR - QUARTER
    assert early == {time: value for time, value in whole.items() if time < 3 * HOUR}


def test_events__rows_in_any_order_doubled_and_unreadable(tmp_path: Path) -> None:
    ordered = [(0 * SECOND, 1), (5 * MINUTE, 4), (5 * MINUTE, 9), (20 * MINUTE, 2), (HOUR, 3)]
    first = read_events(tmp_path, events_spec(), *ordered)
    assert first == read_events(tmp_path, events_spec(), ordered[3], *ordered[:3], ordered[4])
    keep = events_spec(quality={"duplicate_time": {"tolerance": 0, "keep": "last"}})
    assert read_events(tmp_path, keep, *ordered)[0 * QUARTER] == pytest.approx((1 * 5 + 9 * 10) / 15)
    file = write_csv(tmp_path / "meter.csv", "time,power", "2024-07-01 00:00:00,1", "never,2", "2024-07-01 01:00:00,x")
    table = read_readings([file], events_spec())
    assert table["time_utc"].null_count() == 1, "validation counts it"
    assert table.drop_nulls("time_utc")["power_kw"].to_list() == [1, 1, 1, 1]


def test_events__each_column_and_series_holds_its_own_values(tmp_path: Path) -> None:
    spec = events_spec(columns=METER["columns"][:2], series_column="home")
    rows = ["a,00:00,1,20", "b,00:00,5,", "a,00:30,,21", "b,00:30,6,22", "a,01:00,2,21", "b,01:00,6,22"]
    lines = [row.replace(",", ",2024-07-01 ", 1) for row in rows]
    file = write_csv(
        tmp_path / "meter.csv",
        "home,time,power,indoor",
        *[line.replace(":00,", ":00:00,").replace(":30,", ":30:00,") for line in lines],
    )
    table = read_readings([file], spec)
    by_home = {
        name: part.drop("series_id", "time_utc").to_dict(as_series=False)
        for (name,), part in table.group_by("series_id")
    }
    assert by_home["a"] == {"power_kw": [1, 1, 1, 1], "indoor_c": [20, 20, 21, 21]}
    assert by_home["b"] == {"power_kw": [5, 5, 6, 6], "indoor_c": [None, None, 22, 22]}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"columns": [METER["columns"][0] | {"aggregation": "sum"}]}, "column power_kw a sum"),
        (
            {
                "columns": [
                    METER["columns"][0],
                    METER["columns"][0] | {"name": "planned_kw", "source": "planned", "role": "known_future"},
                ]
            },
            "known_future column planned_kw",
        ),
        ({"step_changes": [{"since": START, "raw_step": "PT1H"}]}, "step_changes"),
        ({"timestamp": METER["timestamp"] | {"marks": "end"}}, "marks: end"),
    ],
)
@pytest.mark.bad_input
def test_spec__of_events_refuses_what_has_no_meaning(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(
        ValueError, match=f"event_hold: a value that holds until the next one can't go together with {what}"
    ):
        events_spec(**changes)
