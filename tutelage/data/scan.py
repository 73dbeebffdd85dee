"""One file of a source as a lazy table with a row per series and time, its columns unchanged."""

import difflib
import gzip
import zlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import polars as pl

from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.source import Source, called, partitions
from tutelage.errors import DataError

SERIES = "series_id"
MOST_LINE_BYTES, PIECE_BYTES = 2**20, 2**22
MOST_DENSITY, LEAST_DENSE_BYTES = 200, 2**26
"""A packed table of numbers has a tenth of its size, seldom less than a fiftieth."""


def scan_file(path: Path, spec: DatasetSpec) -> pl.LazyFrame:
    """A file with its columns under the names that the spec's `source` keys have, and the series' name as `series_id`.

    Values of a CSV are text, so that a bad value is detected, not converted. Of a wide file, each column that matches
    the target's `source` is a series.

    Raises DataError with a sentence that names the file and the column where one is missing or doubled.
    """
    scan = _scan(path, spec.source)
    have = _names(scan)
    if spec.series_from != "header":
        _check_columns(have, path, spec)
        return scan.with_columns(_series(have, path, spec).alias(SERIES))
    [pattern] = [column.source for column in spec.columns]
    _require(have, list(spec.timestamp.columns), path)
    meters = [name for name in have if fnmatchcase(name, pattern) and name not in spec.timestamp.columns]
    if not meters:
        raise DataError(f"{called(path)}: no column matches {pattern!r}; the file has {', '.join(map(repr, have))}")
    _require(have, meters, path)
    rows = scan.unpivot(meters, index=list(spec.timestamp.columns), variable_name=SERIES, value_name=pattern)
    # An empty cell is where a meter has no row: it may have begun late, or ended.
    return rows.filter(pl.col(pattern).is_not_null())


def _scan(path: Path, source: Source) -> pl.LazyFrame:
    """One file, all columns unchanged, and those that the folders of a partitioned table stand for, as text."""
    table = _scan_file(path, source)
    of_folders = partitions(path).items()
    have = _names(table) if of_folders else []
    return table.with_columns(pl.lit(value).alias(name) for name, value in of_folders if name not in have)


def _scan_file(path: Path, source: Source) -> pl.LazyFrame:
    """One file; the columns of a CSV as text, so that a bad value is detected, not converted."""
    if not source.is_text:
        return pl.scan_parquet(path, hive_partitioning=False)
    check_size(path)
    how: dict[str, Any] = {
        "separator": source.separator,
        "null_values": list(source.null_values),
        "infer_schema": False,
        "skip_lines": source.skip_lines,
        "comment_prefix": source.comment,
    }
    if source.encoding == "utf-8":
        return pl.scan_csv(path, **how)
    try:
        return read_text(path, source.encoding, **how).lazy()
    except UnicodeDecodeError as error:
        raise DataError(f"{called(path)} is not written in {source.encoding}: {error}") from error


def check_size(path: Path) -> None:
    """Refuse a CSV whose first line has no end, or that is packed so densely that it can be no table.

    It is looked at piece by piece, and no further than such a file allows: memory and time stay small.

    Raises DataError with a sentence.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            size = len(head := file.read(MOST_LINE_BYTES))
            if len(head) == MOST_LINE_BYTES and b"\n" not in head:
                raise DataError(
                    f"{called(path)}: its first line is longer than {MOST_LINE_BYTES // 2**20} MiB: it is no CSV"
                )
            while packed and (piece := file.read(PIECE_BYTES)):
                size += len(piece)
                if size > MOST_DENSITY * path.stat().st_size and size > LEAST_DENSE_BYTES:
                    raise DataError(f"{called(path)} unpacks to more than {MOST_DENSITY} times its size: it is no CSV")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{called(path)} can't be unpacked: {error}") from error


def read_text(path: Path, encoding: str, **how: Any) -> pl.DataFrame:
    """A CSV in any encoding, compressed (gz) or not, with these arguments of `polars.read_csv`."""
    # polars would decode a file before it unpacks it.
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path
    return pl.read_csv(content, encoding="utf8" if encoding == "utf-8" else encoding, **how)


def _names(scan: pl.LazyFrame) -> list[str]:
    return scan.collect_schema().names()


def _check_columns(have: list[str], path: Path, spec: DatasetSpec) -> None:
    columns = spec.columns
    series = [spec.series_column] if spec.series_column else []
    if has_forecasts(have, spec):
        columns, series = tuple(column for column in columns if column.role is Role.KNOWN_FUTURE), []
    elif spec.timestamp.issued is not None:
        columns = tuple(column for column in columns if column.role is not Role.KNOWN_FUTURE)
    # A file of a time without a privileged column need not have it.
    wanted = [*spec.timestamp.columns, *(column.source for column in columns if not column.ends)]
    _require(have, wanted + series, path)


def _series(have: list[str], path: Path, spec: DatasetSpec) -> pl.Expr:
    """The name of a row's series; null where a file of forecasts does not say it."""
    if spec.series_from == "column" and spec.series_column is None:
        return pl.lit(spec.name)
    if spec.series_column in have:
        return pl.col(str(spec.series_column)).cast(pl.String)
    only_forecasts = has_forecasts(have, spec) and spec.target_column.source not in have
    return pl.lit(None, pl.String) if spec.series_column or only_forecasts else pl.lit(path.stem)


def has_forecasts(names: list[str], spec: DatasetSpec) -> bool:
    """Whether a file with these columns has forecasts with their issue times."""
    return spec.timestamp.issued is not None and spec.timestamp.issued.column in names


def _require(have: list[str], wanted: list[str], path: Path) -> None:
    for name in wanted:
        if name not in have:
            near = difflib.get_close_matches(name, have, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"{called(path)}: column {name!r} is missing; the file has {', '.join(map(repr, have))}{hint}"
            )
        # polars renames the second of two equal names.
        if f"{name}_duplicated_0" in have:
            raise DataError(f"{called(path)}: column {name!r} occurs twice in the header, so its values are not known")
