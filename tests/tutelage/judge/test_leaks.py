import datetime as dt
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.tutelage.data.builders import HOUR, MINUTE, START, export_untrained, meter, random_readings
from tutelage.data.quality import clean
from tutelage.errors import LeakError
from tutelage.judge.leaks import Forecast, LeakReport, check_leaks, without_masked
from tutelage.model.inference import forecast_readings, load_student

SPEC = meter()
READINGS = random_readings(SPEC, days=20)
TIMES = [START + dt.timedelta(days=day, hours=day % 24) for day in (3, 9, 17)]
AT = [f"{time:%Y-%m-%d %H:%M} UTC" for time in TIMES]


def guard(forecast: Forecast, readings: pl.DataFrame = READINGS) -> LeakReport:
    return check_leaks(forecast, readings, SPEC, TIMES, seed=0)


def forecast_from(read: Callable[[pl.DataFrame, dt.datetime], float]) -> Forecast:
    """A forecast that is one number, read off the readings."""

    def forecast(readings: pl.DataFrame, times: list[dt.datetime]) -> np.ndarray:
        return np.array([[read(readings, time)] for time in times])

    return forecast


def mean_between(readings: pl.DataFrame, column: str, start: dt.datetime, end: dt.datetime) -> float:
    """The mean over readings from start up to, not including, end; 0 where there are none."""
    inside = readings.filter(pl.col("time_utc").is_between(start, end, closed="left"))
    return inside.select(pl.col(column).mean().fill_null(0.0)).item()


def last_hour(readings: pl.DataFrame, time: dt.datetime) -> float:
    return mean_between(readings, "power_kw", time - HOUR, time)


def traces(report: LeakReport) -> list[str]:
    """What was changed and left a trace, of forecasts that move."""
    assert all(": the forecast moves by up to " in fault for fault in report.faults)
    return [fault.split(": the forecast moves")[0] for fault in report.faults]


def test_guard__passes_an_exported_student(tmp_path: Path) -> None:
    export_untrained(SPEC, tmp_path / "export", lookback=48, horizon=3)
    student = load_student(tmp_path / "export")

    def forecast(readings: pl.DataFrame, times: list[dt.datetime]) -> np.ndarray:
        return forecast_readings(student, readings, SPEC, times).quantiles

    quantiles = forecast(READINGS, TIMES)
    assert quantiles.shape == (3, 3, 99)
    assert np.abs(np.diff(quantiles[:, 0, 49])).min() > 1e-3  # it does answer to its inputs
    report = guard(forecast)
    assert report == LeakReport(checked=12, faults=())  # one privileged column twice, the future, the detail; 3 times
    assert report.passed
    report.require()


def test_guard__passes_the_mean_of_the_last_hour() -> None:
    assert guard(forecast_from(last_hour)).passed


def test_guard__catches_a_privileged_column() -> None:
    report = guard(forecast_from(lambda readings, time: mean_between(readings, "voltage_v", time - HOUR, time)))
    assert traces(report) == ["privileged column voltage_v changed", "privileged column voltage_v removed"]


def test_guard__masked_readings_depend_on_no_privileged_column() -> None:
    """Half of the readings are copies of those of five minutes before, in all columns; a rule masks them."""
    late = pl.col("time_utc").dt.minute() % 10 >= 5
    copied = READINGS.with_columns(
        pl.when(late).then(pl.col(name).shift(5)).otherwise(pl.col(name)).alias(name) for name in SPEC.names()
    )

    def by_the_rules(readings: pl.DataFrame, time: dt.datetime) -> float:
        return last_hour(clean(readings, SPEC), time)

    def by_all_columns(readings: pl.DataFrame, time: dt.datetime) -> float:
        fresh = pl.any_horizontal(pl.col(name) != pl.col(name).shift(5) for name in SPEC.names())
        return last_hour(readings.filter(fresh), time)

    assert clean(copied, SPEC)["power_kw"].null_count() > READINGS.height / 3
    assert guard(forecast_from(by_the_rules), copied).passed
    assert traces(guard(forecast_from(by_all_columns), copied))[0] == "privileged column voltage_v changed"


def test_guard__catches_whether_a_privileged_column_is_there() -> None:
    report = guard(forecast_from(lambda readings, time: float(readings["voltage_v"].null_count() > 0)))
    assert traces(report) == ["privileged column voltage_v removed"]


@pytest.mark.parametrize("column", ["power_kw", "indoor_c"])
def test_guard__catches_the_issue_hour_itself(column: str) -> None:
    report = guard(forecast_from(lambda readings, time: mean_between(readings, column, time, time + HOUR)))
    assert traces(report) == [f"values from {at} on changed" for at in AT]


def test_guard__catches_the_minute_of_the_issue_time() -> None:
    report = guard(forecast_from(lambda readings, time: mean_between(readings, "power_kw", time, time + MINUTE)))
    assert {f"values from {at} on changed" for at in AT} < set(traces(report))


def test_guard__catches_privileged_values_of_the_future() -> None:
    report = guard(forecast_from(lambda readings, time: mean_between(readings, "voltage_v", time, time + HOUR)))
    assert traces(report)[2:] == [f"values from {at} on changed" for at in AT]


def test_guard__catches_detail_below_the_hour() -> None:
    report = guard(forecast_from(lambda readings, time: mean_between(readings, "power_kw", time - MINUTE, time)))
    assert traces(report) == ["readings reordered within their steps"]


def test_guard__catches_a_forecast_that_is_no_number() -> None:
    report = guard(forecast_from(lambda readings, time: float("nan")))
    assert len(report.faults) == 6
    assert all(fault.endswith(": the forecast breaks") for fault in report.faults)


def test_report__require_raises_with_all_faults() -> None:
    report = LeakReport(checked=2, faults=("one: the forecast breaks", "two: the forecast breaks"))
    assert not report.passed
    with pytest.raises(LeakError, match=r"^the student sees .*: one: the forecast breaks; two: the forecast breaks$"):
        report.require()


def test_without_masked__leaves_the_rest_and_the_forecasts_as_they_are(tmp_path: Path) -> None:
    readings = READINGS.with_columns(
        pl.when(pl.int_range(pl.len()) == 700).then(99.0).otherwise("power_kw").alias("power_kw")
    )
    masked = without_masked(readings, SPEC)
    assert masked.columns == readings.columns
    assert masked["power_kw"].null_count() == 1
    assert masked["power_kw"][700] is None
    assert masked["voltage_v"].equals(readings["voltage_v"])
    export_untrained(SPEC, tmp_path / "export", lookback=24, horizon=3)
    student = load_student(tmp_path / "export")
    for table in (readings, masked):
        assert np.array_equal(
            forecast_readings(student, table, SPEC, TIMES).quantiles,
            forecast_readings(student, readings, SPEC, TIMES).quantiles,
        )
