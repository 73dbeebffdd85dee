"""From raw readings to the hourly table that the student sees, and to the readings within each hour."""

import datetime as dt

import numpy as np
import polars as pl
from jaxtyping import Float32

from tutelage.data.dataset import DatasetSpec


def hourly_table(grid: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """One row per hour and series, without gaps: series_id, time_utc (the hour's start), the spec's columns.

    A value is null where its column has less than `quality.complete_share` of the hour's readings. A sum over an hour
    with missing readings is scaled up to the full hour.
    """
    full = spec.readings_per_hour
    values = []
    for column in spec.columns:
        value = pl.col(column.name).mean()
        if column.aggregation == "sum":
            value = value * full
        enough = pl.col(column.name).count() >= spec.quality.complete_share * full
        values.append(pl.when(enough).then(value).alias(column.name))
    hours = (
        grid.lazy()
        .sort("series_id", "time_utc")
        # Not group_by: it splits the rows among threads, and then a mean's last digit depends on how many there are.
        .group_by_dynamic("time_utc", every="1h", group_by="series_id")
        .agg(values)
        .sort("series_id", "time_utc")
        .collect()
    )
    return hours.select("series_id", "time_utc", *spec.names())


def minutes_of_hours(
    grid: pl.DataFrame, hours: pl.DataFrame, spec: DatasetSpec
) -> Float32[np.ndarray, "hours readings"]:
    """The target's raw readings within each hour of `hours`, as deviations from the hour's mean, in its unit.

    The teacher sees the mean in the hourly table. The deviation of a missing reading is 0.
    """
    full = spec.readings_per_hour
    raw_us = spec.raw_step // dt.timedelta(microseconds=1)
    start = pl.col("time_utc").dt.truncate("1h")
    placed = grid.select(
        "series_id",
        start.alias("hour"),
        ((pl.col("time_utc") - start).dt.total_microseconds() // raw_us).alias("slot"),
        pl.col(spec.target),
    ).join(
        hours.select("series_id", hour=pl.col("time_utc"), mean=pl.col(spec.target)).with_row_index("row"),
        on=["series_id", "hour"],
    )
    deviation = (placed[spec.target] - placed["mean"]).fill_null(0.0).to_numpy()
    minutes = np.zeros((hours.height, full), dtype=np.float32)
    minutes[placed["row"].to_numpy(), placed["slot"].to_numpy()] = deviation
    return minutes
