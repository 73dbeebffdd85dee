"""Readings whose step changes, and privileged columns that end."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tutelage.data.builders import HOUR, METER, MINUTE, START, meter, table_of, write_csv
from tutelage.data.dataset import DatasetSpec
from tutelage.data.inputs import issue_time
from tutelage.data.quality import clean, flat, frozen, off_grid_time, regular_grid, repeated
from tutelage.data.readings import read_readings
from tutelage.data.resample import readings_within, student_table
from tutelage.data.steps import step_spans

QUARTER = 15 * MINUTE
CHANGE = START + 4 * HOUR
NO_RULES: dict[str, Any] = {"quality": {"missing_value": {"tolerance": 1}}}


def changing(before: str, after: str, since: dt.datetime = CHANGE, **changes: Any) -> DatasetSpec:
    return meter(raw_step=before, step_changes=[{"since": since, "raw_step": after}], **NO_RULES | changes)


MARKET = changing("PT1H", "PT15M")
"""The market's change of its time unit: four hours, then quarter hours."""
MARKET_TIMES = [START + hour * HOUR for hour in range(4)] + [CHANGE + quarter * QUARTER for quarter in range(8)]


def test_step_change__hours_before_it_and_quarters_after_it_are_both_read() -> None:
    power = [1.0, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11]
    hours = student_table(clean(table_of(MARKET, power, times=MARKET_TIMES), MARKET), MARKET)
    assert hours["power_kw"].to_list() == [1, 2, 3, 4, 5.5, 9.5]
    assert hours["time_utc"].to_list() == [START + hour * HOUR for hour in range(6)]


def test_step_change__a_sum_is_of_a_full_hour_at_either_step() -> None:
    columns = [METER["columns"][0] | {"aggregation": "sum"}]
    spec = changing("PT1H", "PT15M", columns=columns, quality={"complete_share": 0.7})
    table = table_of(spec, [4.0, 4, 4, 4, 1, 1, 1, 1, 1, 1, 1], times=MARKET_TIMES[:11])
    assert student_table(clean(table, spec), spec)["power_kw"].to_list() == [4, 4, 4, 4, 4, 4], "a quarter is missing"
    without = table_of(spec, [4.0, 4, 4, 4, 1, 1], times=MARKET_TIMES[:6])
    assert student_table(clean(without, spec), spec)["power_kw"].to_list() == [4, 4, 4, 4, None]


def test_step_change__the_grid_has_the_step_of_its_time() -> None:
    kept = [time for time in MARKET_TIMES if time not in (START + HOUR, CHANGE + QUARTER)]
    grid = regular_grid(table_of(MARKET, [1.0] * 10, times=kept), MARKET)
    assert grid["time_utc"].to_list() == MARKET_TIMES
    assert grid["power_kw"].null_count() == 2
    off = table_of(MARKET, [1.0] * 3, times=[START, START + QUARTER, CHANGE + QUARTER])
    assert off.select(off_grid_time(MARKET)).to_series().to_list() == [False, True, False]


def test_step_change__a_series_may_be_on_one_side_of_it() -> None:
    early, late = (
        table_of(MARKET, [1.0, 2], times=MARKET_TIMES[:2]),
        table_of(MARKET, [1.0, 2], times=MARKET_TIMES[-2:]),
    )
    assert regular_grid(early, MARKET)["time_utc"].to_list() == MARKET_TIMES[:2]
    assert regular_grid(late, MARKET)["time_utc"].to_list() == MARKET_TIMES[-2:]


def test_step_change__rules_count_rows_of_their_step() -> None:
    spec = changing(
        "PT15M",
        "PT1H",
        columns=METER["columns"][:1],
        quality={
            "frozen": {"at_least": "PT2H", "tolerance": 1},
            "repeated": {"after": "PT1H", "at_least": "PT1H", "tolerance": 1},
            "flat": {"at_least": "PT3H", "tolerance": 1},
        },
    )
    times = [START + quarter * QUARTER for quarter in range(16)] + [CHANGE + hour * HOUR for hour in range(6)]
    power = [float(row % 7) for row in range(16)] + [9.0, 9, 9, 1, 2, 3]
    table = table_of(spec, power, times=times)
    marked = {rule.__name__: table.select(rule(spec)).to_series().arg_true().to_list() for rule in (frozen, flat)}
    assert marked == {"frozen": [17, 18], "flat": [16, 17, 18]}
    copied = table_of(spec, [1.0, 2, 3, 4] * 2 + [float(row) for row in range(14)], times=times)
    assert copied.select(repeated(spec)).to_series().arg_true().to_list() == [4, 5, 6, 7]


def test_step_change__an_end_stamp_belongs_to_the_step_before_it(tmp_path: Path) -> None:
    columns = METER["columns"][:1]
    spec = changing("PT1H", "PT15M", columns=columns, timestamp={**METER["timestamp"], "marks": "end"})
    ends = [START + 3 * HOUR, CHANGE, CHANGE + QUARTER, CHANGE + 2 * QUARTER]
    rows = [f"{time:%Y-%m-%d %H:%M:%S},1" for time in ends]
    table = read_readings([write_csv(tmp_path / "meter.csv", "time,power", *rows)], spec)
    assert table["time_utc"].to_list() == [START + 2 * HOUR, START + 3 * HOUR, CHANGE, CHANGE + QUARTER]


@pytest.mark.parametrize(("marks", "expected"), [("start", [2, 3, 1, 1, None]), ("end", [None, 2, 3, 1, 1])])
def test_step_change__a_register_runs_through_it(tmp_path: Path, marks: str, expected: list[float | None]) -> None:
    columns = [METER["columns"][0] | {"reading": "register", "aggregation": "sum"}]
    spec = changing("PT1H", "PT15M", columns=columns, timestamp={**METER["timestamp"], "marks": marks})
    times = [START + 2 * HOUR, START + 3 * HOUR, CHANGE, CHANGE + QUARTER, CHANGE + 2 * QUARTER]
    rows = [f"{time:%Y-%m-%d %H:%M:%S},{total}" for time, total in zip(times, [10, 12, 15, 16, 17], strict=True)]
    table = read_readings([write_csv(tmp_path / "meter.csv", "time,power", *rows)], spec)
    assert table["power_kw"].to_list() == expected


def test_step_change__a_reading_is_complete_at_the_end_of_its_step(tmp_path: Path) -> None:
    spec = changing("PT15M", "PT1H", columns=METER["columns"][:1])
    rows = [f"{time:%Y-%m-%d %H:%M:%S},1" for time in (CHANGE - QUARTER, CHANGE, CHANGE + HOUR)]
    file = write_csv(tmp_path / "meter.csv", "time,power", *rows)
    now = CHANGE + HOUR + QUARTER
    table = read_readings([file], spec, as_of=now)
    assert table["time_utc"].to_list() == [CHANGE - QUARTER, CHANGE]
    assert issue_time(table, spec, None) == CHANGE + HOUR
    assert issue_time(table.head(1), spec, None) == CHANGE


def test_step_change__only_the_finest_step_has_detail_within_the_hour() -> None:
    power = [1.0, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11]
    grid = clean(table_of(MARKET, power, times=MARKET_TIMES), MARKET)
    detail = readings_within(grid, student_table(grid, MARKET), MARKET)
    assert detail.shape == (6, 4)
    np.testing.assert_array_equal(detail[:4], 0)
    np.testing.assert_array_equal(detail[4:], [[-1.5, -0.5, 0.5, 1.5]] * 2)


CAMPAIGN = changing("PT15M", "PT1H", columns=[METER["columns"][0], METER["columns"][2] | {"until": CHANGE}])
"""Quarter hours with a voltage, then an hourly meter."""


def test_campaign__files_after_it_need_no_privileged_column(tmp_path: Path) -> None:
    during = [f"{START + row * QUARTER:%Y-%m-%d %H:%M:%S},{row},230" for row in range(16)]
    after = [f"{CHANGE + row * HOUR:%Y-%m-%d %H:%M:%S},{row}" for row in range(3)]
    files = [
        write_csv(tmp_path / "1.csv", "time,power,volts", *during),
        write_csv(tmp_path / "2.csv", "time,power", *after),
    ]
    hours = student_table(clean(read_readings(files, CAMPAIGN), CAMPAIGN), CAMPAIGN)
    assert hours["power_kw"].to_list() == [1.5, 5.5, 9.5, 13.5, 0, 1, 2]
    assert hours["voltage_v"].to_list() == [230] * 4 + [None] * 3
    production = read_readings(files[1:], CAMPAIGN.of_student())
    assert production.columns == ["series_id", "time_utc", "power_kw"]


def test_campaign__a_column_is_not_read_outside_its_time(tmp_path: Path) -> None:
    rows = [f"{time:%Y-%m-%d %H:%M:%S},1,230" for time in (START, CHANGE - QUARTER, CHANGE)]
    file = write_csv(tmp_path / "1.csv", "time,power,volts", *rows)
    assert read_readings([file], CAMPAIGN)["voltage_v"].to_list() == [230, 230, None]
    late = changing("PT15M", "PT1H", columns=[METER["columns"][0], METER["columns"][2] | {"since": CHANGE}])
    assert read_readings([file], late)["voltage_v"].to_list() == [None, None, 230]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"step_changes": [{"since": START + QUARTER, "raw_step": "PT1M"}]},
            "at .* no student_step begins on the clock UTC",
        ),
        ({"step_changes": [{"since": START, "raw_step": "PT7M"}]}, "is not a multiple of step_changes 0:07:00"),
        ({"step_changes": [{"since": START, "raw_step": "PT2H"}]}, "is finer than step_changes 2:00:00"),
        ({"step_changes": [{"since": START, "raw_step": "PT0S"}]}, "step_changes: 0:00:00 is not above zero"),
        (
            {"step_changes": [{"since": CHANGE, "raw_step": "PT1H"}, {"since": START, "raw_step": "PT1M"}]},
            "each must be later than the one before",
        ),
        ({"columns__0__until": START}, "a student needs a column with the role 'observed' at any time"),
        ({"columns__2__since": CHANGE, "columns__2__until": START}, "since .* is not before until"),
    ],
)
@pytest.mark.bad_input
def test_spec__refuses_times_that_make_no_sense(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        meter(**changes)


def test_step_spans__without_a_change_are_one() -> None:
    assert step_spans(meter()) == [(MINUTE, None, None)]
    assert meter().of_student().names() == ["power_kw", "indoor_c"]
