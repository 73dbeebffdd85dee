"""Meter registers: running totals, whose differences are the readings."""

import polars as pl

from tutelage.data.dataset import KEY, DatasetSpec
from tutelage.data.steps import step_at


def register_differences(table: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """The table with each register's increase over the row's raw step in place of its total.

    The total at a time belongs to the step that begins then; where times mark a step's end, to the one that ends. Null
    where the total of the other end is missing, so that what a gap has summed up is no single reading, and where the
    total falls: the register was reset, or exchanged. Of rows with one time the one that the spec keeps counts.

    table: readings in any order, with times at the start of their steps
    """
    names = [column.name for column in spec.columns if column.reading == "register"]
    if not names:
        return table
    keep = spec.quality.duplicate_time.keep
    totals = table.drop_nulls("time_utc").unique(KEY, keep=keep, maintain_order=True).sort(KEY)
    step = -1 if spec.timestamp.marks == "start" else 1
    earlier = pl.col("time_utc") if step == -1 else pl.col("time_utc").shift(1).over("series_id")
    apart = (pl.col("time_utc") - pl.col("time_utc").shift(step)).over("series_id")
    adjacent = apart.abs() == step_at(spec, earlier)
    increases = []
    for name in names:
        increase = step * (pl.col(name) - pl.col(name).shift(step).over("series_id"))
        increases.append(pl.when(adjacent & (increase >= 0)).then(increase).alias(name))
    return table.drop(names).join(totals.select(*KEY, *increases), on=KEY, how="left", maintain_order="left")
