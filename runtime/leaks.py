"""The leak check of an exported student, from raw readings to forecast: it must pass to be registered."""

import datetime as dt

import numpy as np
import polars as pl

from schemas.retrain import FeaturesManifest, ReadingsManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import LeakError
from tutelage.judge.leaks import LeakReport, check_leaks, clean_issue_times
from tutelage.model.inference import Student, forecast_readings


def check_exported(
    readings: ReadingsManifest, spec: DatasetSpec, exported: Student, features: FeaturesManifest, *, seed: int
) -> LeakReport:
    """Check an exported student, from raw readings to forecast, at issue times spread over the test part.

    Raises LeakError where it sees data that it must not see.
    """
    start, end = features.test.start_utc, features.test.end_utc
    reach = dt.timedelta(hours=exported.card["lookback_hours"]) + dt.timedelta(days=2)
    raw = pl.scan_parquet(readings.path).filter(pl.col("time_utc").is_between(start - reach, end)).collect()
    series, times = _checkable(raw, spec, features)

    def forecast(table: pl.DataFrame, issue_times: list[dt.datetime]) -> np.ndarray:
        return forecast_readings(exported, table, spec, issue_times).quantiles

    report = check_leaks(forecast, series, spec, times, seed=seed)
    report.require()
    return report


def _checkable(
    raw: pl.DataFrame, spec: DatasetSpec, features: FeaturesManifest
) -> tuple[pl.DataFrame, list[dt.datetime]]:
    """The readings of one series, and its issue times to check: of the fullest series that has any.

    Raises LeakError where no series has one.
    """
    start, end = features.test.start_utc, features.test.end_utc
    fullest = raw.group_by("series_id", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    error = LeakError("the student can't be checked for leaks: there are no readings in the test part")
    for name in fullest["series_id"]:
        series = raw.filter(pl.col("series_id") == name)
        try:
            return series, clean_issue_times(
                series, spec, start, end, lookback_hours=features.lookback_hours, horizon_hours=features.horizon_hours
            )
        except LeakError as reason:
            error = reason
    raise error
