"""The leak guard over exported students, from the raw readings on: what may be registered passes it first."""

import datetime as dt

import numpy as np
import polars as pl

from schemas.manifests import FeaturesManifest, ReadingsManifest
from tutelage.dataset import DatasetSpec
from tutelage.errors import LeakError
from tutelage.export import Student, forecast_readings
from tutelage.leaks import LeakReport, check_leaks
from tutelage.quality import clean
from tutelage.readings import KEY

LEAK_TIMES = 8


def guard(
    readings: ReadingsManifest,
    spec: DatasetSpec,
    exported: dict[str, Student],
    features: FeaturesManifest,
    seed: int,
) -> LeakReport:
    """Check exported students from the raw readings on, at issue times spread over the test part.

    Raises LeakError where one sees what it must not.
    """
    start, end = features.test.start_utc, features.test.end_utc
    reach = dt.timedelta(hours=features.lookback_hours) + dt.timedelta(days=2)
    raw = pl.scan_parquet(readings.path).filter(pl.col("time_utc").is_between(start - reach, end)).collect()
    name = raw["series_id"].unique(maintain_order=True)[0]
    one = raw.filter(pl.col("series_id") == name)
    times = _clean_issue_times(one, spec, features)
    checked, faults = 0, []
    for label, student in exported.items():

        def forecast(table: pl.DataFrame, issued: list[dt.datetime], student: Student = student) -> np.ndarray:
            return forecast_readings(student, table, spec, issued).quantiles

        report = check_leaks(forecast, one, spec, times, seed=seed)
        checked += report.checked
        faults += [f"{label}: {fault}" for fault in report.faults]
    found = LeakReport(checked, tuple(faults))
    found.require()
    return found


def _clean_issue_times(one: pl.DataFrame, spec: DatasetSpec, features: FeaturesManifest) -> list[dt.datetime]:
    """Issue times whose lookback (and the day before it) holds no masked reading, spread over the test part.

    Where readings were masked, a changed neighbour may unmask them: there a difference would be no leak.

    Raises LeakError where there is no such time: what can't be guarded is not registered.
    """
    table = clean(one.sort(KEY), spec)
    full = spec.readings_per_hour
    hours = (
        table.group_by(pl.col("time_utc").dt.truncate("1h"))
        .agg(good=pl.all_horizontal(pl.col(spec.names()).is_not_null()).sum() == full)
        .sort("time_utc")
    )
    needed = features.lookback_hours + 24
    run = hours.with_columns(good=pl.col("good").cast(pl.Int64).rolling_sum(needed).shift(1) == needed)
    inside = pl.col("time_utc").is_between(
        features.test.start_utc + dt.timedelta(hours=features.lookback_hours),
        features.test.end_utc - dt.timedelta(hours=features.horizon_hours),
    )
    times = run.filter(pl.col("good") & inside)["time_utc"].to_list()
    if not times:
        raise LeakError(
            f"the student can't be guarded against leaks: nowhere in the test part are the {needed} hours before an "
            "issue time free of missing and masked readings; take more test days, or a shorter lookback"
        )
    step = max(1, len(times) // LEAK_TIMES)
    return times[step // 2 :: step][:LEAK_TIMES]
