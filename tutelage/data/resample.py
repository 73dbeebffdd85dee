"""From raw readings to the table that the student sees, one row for each step, and to the readings within steps."""

import datetime as dt

import numpy as np
import polars as pl
from jaxtyping import Float32

from tutelage.data.dataset import Column, DatasetSpec, Role
from tutelage.data.steps import begin_of, first_begin, step_at


def student_table(grid: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """One row per student's step and series, without gaps: series_id, time_utc (its start), the spec's columns.

    A value is null where its column has less than `quality.complete_share` of the step's readings. A sum over a step
    with missing readings is scaled up to the full step.
    """
    step_us = spec.student_step // dt.timedelta(microseconds=1)
    values = []
    for column in spec.columns:
        values += [pl.col(column.name).mean(), pl.col(column.name).count().alias(f"{column.name}:count")]
    hours = (
        grid.lazy()
        .sort("series_id", "time_utc")
        # Not group_by: it splits the rows among threads, and then a mean's last digit depends on how many there are.
        .group_by_dynamic("time_utc", every=spec.student_step, group_by="series_id", offset=first_begin(spec))
        .agg(values)
        .with_columns(full=step_us // step_at(spec, pl.col("time_utc")).dt.total_microseconds())
        .with_columns(_whole(column, spec) for column in spec.columns)
        .sort("series_id", "time_utc")
        .collect()
    )
    return hours.select("series_id", "time_utc", *spec.names())


def _whole(column: Column, spec: DatasetSpec) -> pl.Expr:
    """A column's value where enough of the step's readings are there: their mean, or the sum of a full step."""
    mean, enough = pl.col(column.name), pl.col(f"{column.name}:count") >= spec.quality.complete_share * pl.col("full")
    value = mean * pl.col("full") if column.aggregation == "sum" else mean
    return pl.when(enough).then(value).alias(column.name)


def privileged_shares(hours: pl.DataFrame, spec: DatasetSpec) -> dict[str, float]:
    """How much of the privileged data these steps have: shares, 0 to 1, of steps with readings within them
    (`minutes`), and of the privileged columns' values (`auxiliary`).
    """
    detailed = (step_at(spec, pl.col("time_utc")) < spec.student_step) & pl.col(spec.target).is_not_null()
    values = [pl.col(name).is_not_null().mean() for name in spec.names(Role.PRIVILEGED)]
    shares = hours.select(minutes=detailed.mean(), auxiliary=pl.mean_horizontal(values or pl.lit(0.0)))
    return {name: share or 0.0 for name, share in shares.row(0, named=True).items()}


def readings_within(
    grid: pl.DataFrame, hours: pl.DataFrame, spec: DatasetSpec
) -> Float32[np.ndarray, "hours readings"]:
    """The target's raw readings within each step of `hours`, as deviations from the step's mean, in its unit.

    The teacher sees the mean in the student's table. The deviation of a missing reading is 0, and so are those of
    steps whose raw step is not the finest.
    """
    full = spec.readings_per_step
    raw_us = spec.finest_step // dt.timedelta(microseconds=1)
    if spec.step_changes:
        grid = grid.filter(step_at(spec, pl.col("time_utc")) == spec.finest_step)
    start = begin_of(spec.student_step, pl.col("time_utc"), spec)
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
