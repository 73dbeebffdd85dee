"""From a source's files to one table of readings with the spec's column names, keyed by (series_id, time_utc)."""

import datetime as dt
import re
from pathlib import Path

import polars as pl

from tutelage.data.dataset import KEY, Column, DatasetSpec
from tutelage.data.events import regular_readings
from tutelage.data.issued import ISSUED, OF_FORECASTS, parted, with_forecasts
from tutelage.data.registers import register_differences
from tutelage.data.scan import has_forecasts, scan_file
from tutelage.data.source import Source, called
from tutelage.data.steps import begin_of, step_at
from tutelage.errors import DataError

LEAST_TEXTS = 10
"""A column with fewer texts that are no numbers is not refused at once: the quality rules count them."""
MOST_STEPS_PER_ROW = 50
"""Raw steps between the first and the last time, for each row: with more, a time must be wrong."""
LOCAL = pl.Datetime("us")
UTC = pl.Datetime("us", "UTC")


def _measured(path: Path, scan: pl.LazyFrame, spec: DatasetSpec) -> list[pl.Expr]:
    """The measured columns as float64 under the spec's names; a text that is not a number becomes null."""
    schema = scan.collect_schema()
    expressions = []
    for column in spec.columns:
        if column.source not in schema:
            expressions.append(pl.lit(None, pl.Float64).alias(column.name))
            continue
        dtype = schema[column.source]
        if not (dtype == pl.String or dtype.is_numeric()):
            raise DataError(f"{called(path)}: column {column.source!r} holds {dtype}, not numbers")
        value = number_of(pl.col(column.source), spec.source) if dtype == pl.String else pl.col(column.source)
        value = value.cast(pl.Float64, strict=False)
        expressions.append(pl.when(value.is_finite()).then(value).alias(column.name))
    return expressions


def inside_period(column: Column) -> pl.Expr:
    """The rows of the time for which the spec says that the column is there."""
    time, inside = pl.col("time_utc"), pl.lit(True)
    if column.since is not None:
        inside &= time >= pl.lit(column.since).dt.convert_time_zone("UTC")
    if column.until is not None:
        inside &= time < pl.lit(column.until).dt.convert_time_zone("UTC")
    return inside


def number_of(text: pl.Expr, source: Source) -> pl.Expr:
    """The text of a number with a decimal point and no thousands marks; null where a mark stands in a wrong place."""
    text = text.str.strip_chars()
    if source.thousands:
        mark, decimal = re.escape(source.thousands), re.escape(source.decimal)
        # Groups of two are Indian: 12,34,567.
        grouped = text.str.contains(rf"^[+-]?\d{{1,3}}({mark}\d{{2,3}})*{mark}\d{{3}}({decimal}\d*)?$")
        plain = ~text.str.contains(source.thousands, literal=True)
        text = pl.when(plain | grouped).then(text.str.replace_all(source.thousands, "", literal=True))
    if source.decimal == ".":
        return text
    foreign = text.str.contains(".", literal=True)
    return pl.when(~foreign).then(text.str.replace_all(source.decimal, ".", literal=True))


def _check_numbers(path: Path, scan: pl.LazyFrame, part: pl.DataFrame, spec: DatasetSpec) -> None:
    """Refuse a column of texts more than half of which are no numbers, with three of them."""
    schema = scan.collect_schema()
    for column in spec.columns:
        if schema.get(column.source) != pl.String or part[column.name].null_count() <= part.height / 2:
            continue
        texts = scan.select(pl.col(column.source).str.strip_chars()).collect().to_series()
        bad = texts.filter(part[column.name].is_null() & texts.is_not_null())
        bad = bad.filter(~bad.str.to_lowercase().is_in(["nan", "inf", "-inf"]))
        if len(bad) >= LEAST_TEXTS and len(bad) > len(texts.drop_nulls()) / 2:
            examples = ", ".join(map(repr, bad.head(3)))
            raise DataError(
                f"{called(path)}: column {column.source!r} holds texts that are no numbers, such as {examples}; "
                f"the spec's source.decimal is {spec.source.decimal!r}, source.thousands {spec.source.thousands!r}"
            )


def _time(path: Path, scan: pl.LazyFrame, columns: tuple[str, ...], spec: DatasetSpec) -> tuple[pl.Expr, bool]:
    """The time in these columns as it is written, and whether it is UTC; null where it can't be read.

    Without a zone or an offset it is the source's local time.
    """
    schema = scan.collect_schema()
    dtype = schema[columns[0]]
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is None:
            return pl.col(columns[0]).cast(LOCAL), False
        return pl.col(columns[0]).dt.convert_time_zone("UTC").cast(UTC), True
    for name in columns:
        if schema[name] != pl.String:
            raise DataError(f"{called(path)}: column {name!r} holds {schema[name]}, not times")
    text = pl.concat_str([pl.col(name).str.strip_chars() for name in columns], separator=" ")
    # 24:00 is the next day's midnight.
    midnight = text.str.contains(r"(^|[ T])24:00(:00(\.0+)?)?([^0-9:.]|$)")
    text = pl.when(midnight).then(text.str.replace(r"(^|[ T])24:00", "${1}00:00")).otherwise(text)
    day = pl.when(midnight).then(dt.timedelta(days=1)).otherwise(dt.timedelta(0))
    form = spec.timestamp.format
    if "z" in form.replace("%Z", ""):
        text = text.str.replace(r"[Zz]$", "+00:00")
        return text.str.to_datetime(form, time_unit="us", strict=False, time_zone="UTC") + day, True
    return text.str.to_datetime(form, time_unit="us", strict=False) + day, False


def _issue_time(path: Path, scan: pl.LazyFrame, spec: DatasetSpec) -> list[pl.Expr]:
    """Of a spec of forecasts as they were issued: the issue time, UTC, and whether the file has such times.

    In the hour that a local clock repeats, it is the later one: no forecast is taken for an earlier one than it is.
    """
    issued = spec.timestamp.issued
    if issued is None:
        return []
    has_times = has_forecasts(scan.collect_schema().names(), spec)
    time = pl.lit(None, UTC)
    if has_times:
        time, is_utc = _time(path, scan, (issued.column,), spec)
        if not is_utc:
            local = time.dt.replace_time_zone(spec.timestamp.timezone, ambiguous="latest", non_existent="null")
            time = local.dt.convert_time_zone("UTC")
    return [time.alias(ISSUED), pl.lit(has_times).alias(OF_FORECASTS)]


def to_utc(table: pl.DataFrame, spec: DatasetSpec) -> pl.Series:
    """A local clock's times (`local`) as UTC: null in the hour that the clock skips.

    In the hour that it repeats, rows that step against the direction of their series in the table begin the second
    pass. In a series with the newest row first, the pass that is read first is the later one.
    """
    zone, local = spec.timestamp.timezone, pl.col("local")
    series = [name for name in ("series_id", ISSUED) if name in table.columns]

    def on_clock(which: str) -> pl.Expr:
        placed = local.dt.replace_time_zone(zone, ambiguous=which, non_existent="null")  # type: ignore[arg-type]
        return placed.dt.convert_time_zone("UTC")

    both = table.select(*series, "local", earliest=on_clock("earliest"), latest=on_clock("latest"))
    twice = pl.col("earliest") != pl.col("latest")
    if not both.select(twice.any()).item():
        return both["earliest"].alias("time_utc")
    step = local.diff().over(series).dt.total_microseconds()
    newest_first = ((step < 0).sum() > (step > 0).sum()).over(series)
    against = pl.when(newest_first).then(step >= 0).otherwise(step <= 0).fill_null(False)
    begins = against & twice
    second = (begins.cum_sum() > 0).over(*series, local.dt.date())
    both_passes = begins.any().over(*series, local.dt.date())
    # Where the clock goes back by half an hour, only one pass of hourly readings is a multiple of their step.
    passes = [pl.col(which) for which in ("earliest", "latest")]
    fits = [time == begin_of(spec.finest_step, time, spec) for time in passes]
    later = pl.when(fits[0] != fits[1]).then(fits[1]).otherwise(both_passes & (second != newest_first))
    return both.select(time_utc=pl.when(twice & later).then("latest").otherwise("earliest")).to_series()


def _check_span(table: pl.DataFrame, spec: DatasetSpec, names: str) -> None:
    """Refuse times so far apart that a grid from the first to the last would hold almost nothing."""
    for (series,), rows in table.drop_nulls("time_utc").group_by("series_id", maintain_order=True):
        times = rows["time_utc"].unique().sort()
        steps = (times[-1] - times[0]) // spec.finest_step
        if steps > MOST_STEPS_PER_ROW * max(len(times), 1000):
            after = int(times.diff().arg_max() or 0)
            lonely, gap = times[after:] if after > len(times) / 2 else times[:after], times[after] - times[after - 1]
            raise DataError(
                f"{names}: {len(lonely)} of {len(times)} times of series {series}, such as {lonely[0]:%Y-%m-%d %H:%M} "
                f"UTC, are {gap.days} days away from all others, so they must be wrong"
            )


def read_readings(
    files: list[Path], spec: DatasetSpec, *, as_of: dt.datetime | None = None, ahead_hours: int | None = None
) -> pl.DataFrame:
    """Read a source into one table: series_id, time_utc (the reading's start), then the spec's columns as float64.

    Rows keep the source's order; nothing is repaired or dropped, except readings that were not complete at `as_of`
    (UTC). A time that can't be read is null. A time with an offset or a zone is converted; a time without is local.
    Of a register the reading is the increase over the raw step.

    ahead_hours: of forecasts with issue times, those that were there so long before their hour (`spec.ahead_hours`)

    Raises DataError with a sentence that names the file and the column where a column is missing, doubled, holds no
    numbers or no readable times, where files differ in whether their times have offsets, where a time is years away
    from all others, and where no reading is left.
    """
    parts, zoned = [], {}
    for path in files:
        try:
            scan = scan_file(path, spec)
            time, zoned[called(path)] = _time(path, scan, spec.timestamp.columns, spec)
            columns = [time.alias("local"), *_measured(path, scan, spec), *_issue_time(path, scan, spec)]
            part = scan.select("series_id", *columns).collect()
        except (pl.exceptions.ComputeError, pl.exceptions.NoDataError) as error:
            hint = (
                "; if it is not written in UTF-8, name its encoding in source.encoding" if "utf" in str(error) else ""
            )
            raise DataError(f"{called(path)} can't be read as {spec.source.format}: {error}{hint}") from error
        if part.height and part["local"].null_count() == part.height:
            raise DataError(f"{called(path)}: {_no_time(path, spec)}")
        _check_numbers(path, scan, part, spec)
        parts.append(part)
    if len(set(zoned.values())) > 1:
        aware, naive = (next(name for name, value in zoned.items() if value is kind) for kind in (True, False))
        raise DataError(f"the times of {aware} have a zone, those of {naive} have none: make one dataset of each")
    table, names = pl.concat(parts), ", ".join(map(called, files))
    if table.is_empty():
        raise DataError(f"{names}: there are no rows")
    time_utc = table["local"].alias("time_utc") if any(zoned.values()) else to_utc(table, spec)
    table, forecasts = table.with_columns(time_utc), None
    if spec.timestamp.issued is not None:
        if ahead_hours is None:
            raise DataError(f"{names}: forecasts as they were issued are read for a horizon, and none is given")
        table, forecasts = parted(table, spec, names)
    if spec.timestamp.marks == "end":
        time = pl.col("time_utc")
        table = table.with_columns(time - step_at(spec, time - dt.timedelta(microseconds=1)))
    table = register_differences(table, spec)
    if spec.event_hold is not None:
        table = regular_readings(table, spec, spec.event_hold, until=as_of)
    if forecasts is not None and ahead_hours is not None:
        table = with_forecasts(table, forecasts, spec, ahead_hours)
    if as_of is not None:
        # A row without a readable time stays: validation must count it, and no forecast can use it.
        done = pl.col("time_utc") + step_at(spec, pl.col("time_utc")) <= pl.lit(as_of).dt.convert_time_zone("UTC")
        table = table.filter(done | pl.col("time_utc").is_null())
    if table.is_empty():
        raise DataError(f"{names}: no reading up to {as_of or 'the end'}")
    _check_span(table, spec, names)
    ended = [pl.when(inside_period(c)).then(pl.col(c.name)).alias(c.name) for c in spec.columns if c.ends]
    return table.with_columns(ended).select(*KEY, *spec.names())


def _no_time(path: Path, spec: DatasetSpec) -> str:
    """What the time columns hold instead of times in the spec's format."""
    scan = scan_file(path, spec).select(spec.timestamp.columns).head(1).collect()
    first = " ".join(str(value) for value in scan.row(0)) if scan.height else ""
    return (
        f"column {', '.join(spec.timestamp.columns)} has no time in the format {spec.timestamp.format}, but {first!r}"
    )
