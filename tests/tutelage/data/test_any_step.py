"""The student's table and windows with steps of five minutes to a day."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
import torch

from tests.tutelage.data.builders import HOUR, START, meter, random_readings
from tutelage.data.calendar import calendar_features
from tutelage.data.dataset import DatasetSpec
from tutelage.data.inputs import issue_time, recent_steps
from tutelage.data.quality import clean
from tutelage.data.resample import readings_within, student_table
from tutelage.data.windows import Span, make_panel, window_origins

DAY = dt.timedelta(days=1)
STEPS = ("PT5M", "PT15M", "PT1H", "PT6H", "P1D")


def spec_of(step: str, zone: str = "UTC") -> DatasetSpec:
    """The meter with readings every five minutes, and its rules for runs left out."""
    readings = {"raw_step": "PT5M", "timestamp": {"columns": ["time"], "timezone": zone}}
    return meter(student_step=step, quality={}, **readings)


@pytest.mark.parametrize("step", STEPS)
def test_student_table__a_value_is_the_mean_of_its_readings(step: str) -> None:
    spec = spec_of(step)
    readings = random_readings(spec, days=6)
    table = student_table(clean(readings, spec), spec)
    power = readings["power_kw"].to_numpy().reshape(-1, spec.readings_per_step)
    assert table["time_utc"].to_list() == [START + row * spec.student_step for row in range(6 * spec.grid.of_day)]
    np.testing.assert_allclose(table["power_kw"].to_numpy(), power.mean(axis=1))
    within = readings_within(clean(readings, spec), table, spec)
    np.testing.assert_allclose(within, power - power.mean(axis=1, keepdims=True), atol=1e-5)
    panel = make_panel(table, within, spec)
    assert [panel.grid.time(int(row)) for row in panel.step] == table["time_utc"].to_list()
    assert panel.most_filled == 6 * HOUR // spec.student_step


def test_student_table__days_are_those_of_the_clock() -> None:
    spec = spec_of("P1D", "Asia/Kolkata")
    readings = random_readings(spec, days=4)
    table = student_table(clean(readings, spec), spec)
    midnight = dt.datetime(2024, 6, 30, 18, 30, tzinfo=dt.UTC)
    assert table["time_utc"].to_list() == [midnight + day * DAY for day in range(5)]
    whole = readings.filter(pl.col("time_utc").is_between(midnight + DAY, midnight + 2 * DAY, closed="left"))
    assert table["power_kw"][1] == pytest.approx(whole["power_kw"].mean())
    assert table["power_kw"].is_null().to_list() == [True, False, False, False, True], "half days have no value"


@pytest.mark.parametrize("step", STEPS)
def test_window_origins__a_gap_of_a_step_costs_the_windows_that_it_is_in(step: str) -> None:
    spec = spec_of(step).model_copy(update={"serving": meter(serving={"missing_hours": "refuse"}).serving})
    days = 12 if spec.student_step == DAY else 3
    panel = make_panel(*_table(spec, days), spec)
    rows, gap = len(panel.step), len(panel.step) // 2
    panel.observed[gap] = torch.nan
    assert panel.filled is not None
    panel.filled[gap] = torch.nan
    span = Span(START, START + days * DAY)
    found = window_origins(panel, span, lookback=3, horizon=2)
    expected = [row for row in range(3, rows - 1) if not row - 3 <= gap < row + 2]
    assert found.tolist() == expected


def _table(spec: DatasetSpec, days: int) -> tuple[pl.DataFrame, np.ndarray]:
    table = student_table(clean(random_readings(spec, days=days), spec), spec)
    return table, np.zeros((table.height, 0), dtype=np.float32)


@pytest.mark.parametrize("step", STEPS)
def test_recent_hours__a_late_step_takes_that_of_the_day_before(step: str) -> None:
    spec = spec_of(step).model_copy(update={"serving": meter(serving={"at_most_hours": 24}).serving})
    readings, issued = random_readings(spec, days=10), START + 9 * DAY
    late = readings.filter(~pl.col("time_utc").is_between(issued - spec.student_step, issued, closed="left"))
    whole, filled = (
        recent_steps(each, spec, issued, lookback_hours=48, complete_hours=48, horizon_hours=24)
        for each in (readings, late)
    )
    assert whole.height == filled.height == 2 * spec.grid.of_day
    assert filled["filled"].to_list() == [False] * (filled.height - 1) + [True]
    assert filled["power_kw"][-1] == whole["power_kw"][-1 - spec.grid.of_day]
    assert issue_time(readings, spec, issued + spec.student_step * 0.9) == issued


def test_calendar_features__hours_have_their_fraction() -> None:
    times = pl.datetime_range(START, START + HOUR, "15m", closed="left", eager=True)
    hour = calendar_features(times, meter().calendar)["hour"]
    assert hour.to_list() == [2.0, 2.25, 2.5, 2.75], "two hours ahead of UTC in summer"
