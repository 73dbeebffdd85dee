"""Forecasts with their issue times, such as weather: of each hour the value that was known in time.

An hour's value is that of the last issue that was there `ahead_hours`, the horizon, before the hour, and the same in
training and in production. So no window sees what was issued after its own issue time, whichever lead it is at; a
fresher issue that production would have for short leads is not used.
"""

import datetime as dt

import polars as pl

from tutelage.data.dataset import KEY, DatasetSpec, Role
from tutelage.data.grid import HOUR
from tutelage.errors import DataError

ISSUED, OF_FORECASTS = "issued_utc", "of_forecasts"
"""Columns of a table that is being read: a row's issue time, and whether its file has issue times."""


def has_reading(spec: DatasetSpec) -> pl.Expr:
    """Rows with a measured value: one that holds only what is known ahead of time is no reading."""
    return pl.any_horizontal(pl.col(spec.names(Role.OBSERVED, Role.PRIVILEGED)).is_not_null())


def parted(table: pl.DataFrame, spec: DatasetSpec, names: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A table as it was read, parted into its readings, without known_future columns, and its forecasts.

    A row of a file with issue times can hold both; the reading that rows of several issues repeat is one.

    Raises DataError where a forecast's issue time can't be read.
    """
    issued, known = spec.timestamp.issued, spec.names(Role.KNOWN_FUTURE)
    assert issued is not None
    measured = spec.names(Role.OBSERVED, Role.PRIVILEGED)
    unknown = table.filter(pl.col(OF_FORECASTS) & pl.col(ISSUED).is_null())
    if unknown.height:
        raise DataError(
            f"{names}: column {issued.column!r} has no time in the format {spec.timestamp.format} in {unknown.height} "
            f"rows, such as that of {unknown['local'][0]}"
        )
    readings = table.filter(~pl.col(OF_FORECASTS) | has_reading(spec) | pl.col("time_utc").is_null())
    repeated = readings.filter(pl.col(OF_FORECASTS)).unique([*KEY, *measured], keep="first", maintain_order=True)
    readings = pl.concat([readings.filter(~pl.col(OF_FORECASTS)), repeated])
    if readings.is_empty():
        raise DataError(f"{names}: there are forecasts only; no file has column {spec.target_column.source!r}")
    forecasts = table.filter(pl.col(OF_FORECASTS) & pl.col("time_utc").is_not_null())
    return readings.drop(ISSUED, OF_FORECASTS, *known), forecasts.select(*KEY, ISSUED, *known)


def with_forecasts(
    readings: pl.DataFrame, forecasts: pl.DataFrame, spec: DatasetSpec, ahead_hours: int
) -> pl.DataFrame:
    """The readings with the known_future columns that were known `ahead_hours` before each.

    Times of forecasts without a reading have a row of their own, from a series' first reading on. Forecasts without a
    series are of all series. A forecast's value holds for its step.
    """
    issued = spec.timestamp.issued
    assert issued is not None
    known, step = spec.names(Role.KNOWN_FUTURE), issued.step or spec.raw_step
    if spec.timestamp.marks == "end":
        forecasts = forecasts.with_columns(pl.col("time_utc") - step)
    in_time = pl.col(ISSUED) + issued.available_after <= pl.col("time_utc") - ahead_hours * HOUR
    last = (
        forecasts.filter(in_time)
        .sort(ISSUED, maintain_order=True)
        .group_by(KEY, maintain_order=True)
        .agg(pl.col(known).drop_nulls().last())
    )
    if step > spec.raw_step:
        times = pl.datetime_ranges("time_utc", pl.col("time_utc") + step, spec.raw_step, closed="left", time_unit="us")
        last = last.with_columns(time_utc=times).explode("time_utc")
    of_all = last.filter(pl.col("series_id").is_null()).drop("series_id")
    series = readings.group_by("series_id", maintain_order=True).agg(first=pl.col("time_utc").min())
    every = pl.concat([last.drop_nulls("series_id"), series.join(of_all, how="cross").select(last.columns)])
    every = every.unique(KEY, keep="first", maintain_order=True)  # a series' own forecast before that of all
    every = every.join(series, on="series_id").filter(pl.col("time_utc") >= pl.col("first")).drop("first")
    ahead = every.join(readings, on=KEY, how="anti").sort(KEY)
    joined = readings.join(every, on=KEY, how="left", maintain_order="left")
    return pl.concat([joined, ahead], how="diagonal").select(*joined.columns)


def last_measured(table: pl.DataFrame, spec: DatasetSpec) -> dt.datetime | None:
    """The last time; where columns are known ahead of time, the last one with a value that is measured."""
    last = table.select(last_time(spec)).item()
    assert last is None or isinstance(last, dt.datetime)
    return last


def last_time(spec: DatasetSpec) -> pl.Expr:
    """What `last_measured` returns, as an expression."""
    time = pl.col("time_utc")
    return (time.filter(has_reading(spec)) if spec.names(Role.KNOWN_FUTURE) else time).max()
