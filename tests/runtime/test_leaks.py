import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import runtime.leaks
from runtime.leaks import check_exported
from schemas.retrain import FeaturesManifest, ReadingsManifest
from tests.runtime.builders import exported_student
from tests.tutelage.data.builders import HOUR
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import LeakError
from tutelage.forecasts import Forecasts
from tutelage.model.inference import Student, forecast_readings, load_student


@pytest.fixture
def honest(tmp_path: Path) -> Student:
    return load_student(exported_student(tmp_path / "export"))


def test_check_exported__counts_what_it_has_changed(
    readings: ReadingsManifest, spec: DatasetSpec, features: FeaturesManifest, honest: Student
) -> None:
    report = check_exported(readings, spec, honest, features, seed=0)
    assert report.passed
    assert report.checked == 4 * 8, "a column changed and gone, the future, the hours' order, at eight times"


def test_check_exported__refuses_a_student_that_sees_a_privileged_column(
    readings: ReadingsManifest,
    spec: DatasetSpec,
    features: FeaturesManifest,
    honest: Student,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def forecast(student: Student, table: pl.DataFrame, spec: DatasetSpec, times: list[dt.datetime]) -> Forecasts:
        """The leaky one adds the voltage of the hour before."""
        seen.extend(times)
        forecasts = forecast_readings(student, table, spec, times)
        of_hour = [table.filter(pl.col("time_utc").is_between(t - HOUR, t))["voltage_v"].mean() or 0 for t in times]
        return replace(forecasts, quantiles=forecasts.quantiles + np.array(of_hour)[:, None, None])

    monkeypatch.setattr(runtime.leaks, "forecast_readings", forecast)
    with pytest.raises(LeakError, match="privileged column voltage_v changed: the forecast moves"):
        check_exported(readings, spec, honest, features, seed=0)
    assert min(seen) >= features.test.start_utc
    assert max(seen) < features.test.end_utc


def test_check_exported__takes_a_series_that_can_be_checked(
    readings: ReadingsManifest, spec: DatasetSpec, features: FeaturesManifest, honest: Student, tmp_path: Path
) -> None:
    whole = pl.read_parquet(readings.path)
    ended = whole.filter(pl.col("time_utc") < features.test.start_utc).with_columns(series_id=pl.lit("ended"))
    pl.concat([ended, whole]).write_parquet(tmp_path / "readings.parquet")
    both = readings.model_copy(update={"path": tmp_path / "readings.parquet"})
    assert check_exported(both, spec, honest, features, seed=0).checked == 4 * 8
    ended.write_parquet(tmp_path / "ended.parquet")
    alone = readings.model_copy(update={"path": tmp_path / "ended.parquet"})
    with pytest.raises(LeakError, match="can't be checked for leaks"):
        check_exported(alone, spec, honest, features, seed=0)
