"""From a source's files to one table of readings with the spec's column names, keyed by (series_id, time_utc)."""

import datetime as dt
from pathlib import Path

import polars as pl

from tutelage.data.dataset import DatasetSpec
from tutelage.errors import DataError

KEY = ["series_id", "time_utc"]


def _scan(path: Path, spec: DatasetSpec) -> pl.LazyFrame:
    """One file, all columns unchanged; those of a CSV as text, so that a bad value is detected, not converted."""
    if spec.source.format == "parquet":
        return pl.scan_parquet(path)
    return pl.scan_csv(
        path,
        separator=spec.source.separator,
        null_values=list(spec.source.null_values),
        infer_schema=False,
    )


def _check_columns(scan: pl.LazyFrame, path: Path, spec: DatasetSpec) -> None:
    wanted = [*spec.timestamp.columns, *(column.source for column in spec.columns)]
    wanted += [spec.series_column] if spec.series_column else []
    have = scan.collect_schema().names()
    absent = [name for name in wanted if name not in have]
    if absent:
        raise DataError(f"{path.name}: column {', '.join(absent)} is missing; the file has {', '.join(have)}")


def _measured(path: Path, scan: pl.LazyFrame, spec: DatasetSpec) -> list[pl.Expr]:
    """The measured columns as float64 under the spec's names; a text that is not a number becomes null."""
    schema = scan.collect_schema()
    expressions = []
    for column in spec.columns:
        dtype = schema[column.source]
        if not (dtype == pl.String or dtype.is_numeric()):
            raise DataError(f"{path.name}: column {column.source} holds {dtype}, not numbers")
        value = pl.col(column.source)
        value = value.str.strip_chars() if dtype == pl.String else value
        value = value.cast(pl.Float64, strict=False)
        expressions.append(pl.when(value.is_finite()).then(value).alias(column.name))
    return expressions


def _local_time(path: Path, scan: pl.LazyFrame, spec: DatasetSpec) -> pl.Expr:
    """The local time of the source's clock, without a zone; null where it can't be read."""
    columns = spec.timestamp.columns
    schema = scan.collect_schema()
    dtype = schema[columns[0]]
    if isinstance(dtype, pl.Datetime):
        zoned = pl.col(columns[0])
        if dtype.time_zone is not None:
            zoned = zoned.dt.convert_time_zone(spec.timestamp.timezone).dt.replace_time_zone(None)
        return zoned.cast(pl.Datetime("us"))
    for name in columns:
        if schema[name] != pl.String:
            raise DataError(f"{path.name}: column {name} holds {schema[name]}, not times")
    text = pl.concat_str([pl.col(name).str.strip_chars() for name in columns], separator=" ")
    return text.str.to_datetime(spec.timestamp.format, time_unit="us", strict=False)


def to_utc(local: str, zone: str) -> pl.Expr:
    """A local clock's times as UTC: null in the hour that the clock skips, resolved by row order in the one it repeats.

    The first row of a series with an ambiguous time is the earlier hour (summer time), the second is the later one.
    """
    first = pl.int_range(pl.len()).over("series_id", local) == 0
    return (
        pl.col(local)
        .dt.replace_time_zone(
            zone,
            ambiguous=pl.when(first).then(pl.lit("earliest")).otherwise(pl.lit("latest")),
            non_existent="null",
        )
        .dt.convert_time_zone("UTC")
    )


def read_readings(files: list[Path], spec: DatasetSpec, *, as_of: dt.datetime | None = None) -> pl.DataFrame:
    """Read a source into one table: series_id, time_utc (the reading's start), then the spec's columns as float64.

    Rows keep the source's order; nothing is repaired or dropped, except readings that were not complete at `as_of`
    (UTC). A time that can't be read is null.

    Raises DataError with a sentence that names the file and the column where a column is missing, holds no numbers or
    no readable times, and where no reading is left.
    """
    parts = []
    for path in files:
        try:
            scan = _scan(path, spec)
            _check_columns(scan, path, spec)
            series = pl.col(spec.series_column).cast(pl.String) if spec.series_column else pl.lit(spec.name)
            parts.append(
                scan.select(
                    series.alias("series_id"),
                    _local_time(path, scan, spec).alias("local"),
                    *_measured(path, scan, spec),
                ).collect()
            )
        except (pl.exceptions.ComputeError, pl.exceptions.NoDataError) as error:
            raise DataError(f"{path.name} can't be read as {spec.source.format}: {error}") from error
    table, names = pl.concat(parts), ", ".join(path.name for path in files)
    if table.is_empty():
        raise DataError(f"{names}: there are no rows")
    if table["local"].null_count() == table.height:
        timestamp = spec.timestamp
        raise DataError(f"{names}: column {', '.join(timestamp.columns)} has no time in the format {timestamp.format}")
    table = table.with_columns(to_utc("local", spec.timestamp.timezone).alias("time_utc"))
    if as_of is not None:
        # A row without a readable time stays: validation must count it, and no forecast can use it.
        done = pl.col("time_utc") + spec.raw_step <= pl.lit(as_of).dt.convert_time_zone("UTC")
        table = table.filter(done | pl.col("time_utc").is_null())
    if table.is_empty():
        raise DataError(f"{names}: no reading up to {as_of or 'the end'}")
    return table.select(*KEY, *spec.names())
