"""From raw readings to the hourly table that the student sees, and to the readings within each hour."""

import datetime as dt

import numpy as np
import polars as pl
from jaxtyping import Float32

from tutelage.data.dataset import Column, DatasetSpec, Role
from tutelage.data.steps import HOUR, begin_of, first_begin, step_at

HOUR_US = 3_600_000_000


def hourly_table(grid: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """One row per hour and series, without gaps: series_id, time_utc (the hour's start), the spec's columns.

    A value is null where its column has less than `quality.complete_share` of the hour's readings. A sum over an hour
    with missing readings is scaled up to the full hour.
    """
    values = []
    for column in spec.columns:
        values += [pl.col(column.name).mean(), pl.col(column.name).count().alias(f"{column.name}:count")]
    hours = (
        grid.lazy()
        .sort("series_id", "time_utc")
        # Not group_by: it splits the rows among threads, and then a mean's last digit depends on how many there are.
        .group_by_dynamic("time_utc", every="1h", group_by="series_id", offset=first_begin(spec))
        .agg(values)
        .with_columns(full=HOUR_US // step_at(spec, pl.col("time_utc")).dt.total_microseconds())
        .with_columns(_whole(column, spec) for column in spec.columns)
        .sort("series_id", "time_utc")
        .collect()
    )
    return hours.select("series_id", "time_utc", *spec.names())


def _whole(column: Column, spec: DatasetSpec) -> pl.Expr:
    """A column's hourly value where enough of the hour's readings are there: their mean, or the sum of a full hour."""
    mean, enough = pl.col(column.name), pl.col(f"{column.name}:count") >= spec.quality.complete_share * pl.col("full")
    value = mean * pl.col("full") if column.aggregation == "sum" else mean
    return pl.when(enough).then(value).alias(column.name)


def privileged_shares(hours: pl.DataFrame, spec: DatasetSpec) -> dict[str, float]:
    """How much of the privileged data these hours have: shares, 0 to 1, of hours with readings within the hour
    (`minutes`), and of the privileged columns' values (`auxiliary`).
    """
    detailed = (step_at(spec, pl.col("time_utc")) < spec.student_step) & pl.col(spec.target).is_not_null()
    values = [pl.col(name).is_not_null().mean() for name in spec.names(Role.PRIVILEGED)]
    shares = hours.select(minutes=detailed.mean(), auxiliary=pl.mean_horizontal(values or pl.lit(0.0)))
    return {name: share or 0.0 for name, share in shares.row(0, named=True).items()}


def minutes_of_hours(
    grid: pl.DataFrame, hours: pl.DataFrame, spec: DatasetSpec
) -> Float32[np.ndarray, "hours readings"]:
    """The target's raw readings within each hour of `hours`, as deviations from the hour's mean, in its unit.

    The teacher sees the mean in the hourly table. The deviation of a missing reading is 0, and so are those of
    hours whose step is not the finest.
    """
    full = spec.readings_per_hour
    raw_us = spec.finest_step // dt.timedelta(microseconds=1)
    if spec.step_changes:
        grid = grid.filter(step_at(spec, pl.col("time_utc")) == spec.finest_step)
    start = begin_of(HOUR, pl.col("time_utc"), spec)
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
