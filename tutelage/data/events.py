"""Rows on change only: each value holds until the next one, and becomes regular readings, weighted by time."""

import datetime as dt

import polars as pl

from tutelage.data.dataset import KEY, DatasetSpec
from tutelage.data.steps import begin_of, first_begin

TIME = pl.col("time_utc")


def regular_readings(
    table: pl.DataFrame, spec: DatasetSpec, hold: dt.timedelta, *, until: dt.datetime | None = None
) -> pl.DataFrame:
    """Events as regular readings: of each raw step the mean of the values that held in it, weighted by time.

    A value holds until the next one in its column and series, for `hold` at most. Null where values held for less than
    `quality.complete_share` of a step. The last step is the last one that had ended at `until`. Rows without a readable
    time stay: validation counts them. Of several rows with one time the one that the spec keeps counts.

    table: rows in any order; until: UTC; None: the newest time of all series
    """
    table = table.select(*KEY, *spec.names())
    timed = table.filter(TIME.is_not_null())
    end = timed.select(TIME.max()).item() if until is None else until.astimezone(dt.UTC)
    timed = timed.filter(end > TIME)
    if timed.is_empty():
        return table.filter(TIME.is_null())
    last = pl.min_horizontal(TIME.max() + hold, pl.lit(end)) - spec.raw_step
    first = begin_of(spec.raw_step, TIME.min(), spec)
    spans = timed.group_by("series_id", maintain_order=True).agg(first=first, last=last)
    readings = (
        spans.filter(pl.col("first") <= pl.col("last"))
        .with_columns(time_utc=pl.datetime_ranges("first", "last", interval=spec.raw_step))
        .explode("time_utc")
    )
    for name in spec.names():
        held = _held(timed.select(*KEY, name), spec, hold, end)
        readings = readings.join(held, on=KEY, how="left", maintain_order="left")
    return pl.concat([readings.select(table.columns), table.filter(TIME.is_null())])


def _held(events: pl.DataFrame, spec: DatasetSpec, hold: dt.timedelta, end: dt.datetime) -> pl.DataFrame:
    """A column's time-weighted means by raw step; null where values held for too small a share of it."""
    name, step = events.columns[-1], spec.raw_step
    events = events.drop_nulls(name).unique(KEY, keep=spec.quality.duplicate_time.keep, maintain_order=True).sort(KEY)
    following = TIME.shift(-1).over("series_id").fill_null(pl.lit(end))
    cells = (
        events.with_columns(ended=pl.min_horizontal(following, TIME + hold))
        .with_columns(step=pl.datetime_ranges(begin_of(step, TIME, spec), "ended", interval=step, closed="left"))
        .explode("step")
        .with_columns(held=pl.min_horizontal("ended", pl.col("step") + step) - pl.max_horizontal(TIME, "step"))
        .with_columns(pl.col("held").dt.total_microseconds())
    )
    least = spec.quality.complete_share * (step // dt.timedelta(microseconds=1))
    # Not group_by: it splits the rows among threads, and then a sum's last digit depends on how many there are.
    means = cells.group_by_dynamic("step", every=step, group_by="series_id", offset=first_begin(spec)).agg(
        (pl.col(name) * pl.col("held")).sum() / pl.col("held").sum(), pl.col("held").sum()
    )
    return means.select("series_id", time_utc="step", value=pl.when(pl.col("held") >= least).then(name)).rename(
        {"value": name}
    )
