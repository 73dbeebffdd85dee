"""What can be wrong with readings, as one boolean expression a rule, and what is done about it.

A rule's expression is true where a row (or a value) breaks the rule. The rules look at a row and at what stands before
it, never after: a forecast issued at noon can't be told by the afternoon which of its inputs were bad. (`frozen` marks
the whole of a run, and so looks ahead as far as the run's end; `student_inputs` cuts the readings at the issue time
before it asks.)
"""

import polars as pl

from tutelage.dataset import DatasetSpec
from tutelage.readings import KEY

QUARANTINED = ("unreadable_time", "off_grid_time", "duplicate_time")
MASKED_ROWS = ("repeated", "frozen")


def unreadable_time() -> pl.Expr:
    """Rows whose time can't be read or does not exist on the local clock."""
    return pl.col("time_utc").is_null()


def off_grid_time(spec: DatasetSpec) -> pl.Expr:
    """Rows whose time is no multiple of the raw step."""
    return (pl.col("time_utc") != pl.col("time_utc").dt.truncate(spec.raw_step)).fill_null(False)


def duplicate_time() -> pl.Expr:
    """Rows whose key stood in an earlier row already: the first is kept."""
    return (pl.int_range(pl.len()).over(KEY) > 0) & pl.col("time_utc").is_not_null()


def out_of_range(name: str, minimum: float, maximum: float) -> pl.Expr:
    """Values outside the valid range; null is not out of range."""
    return (~pl.col(name).is_between(minimum, maximum)).fill_null(False)


def _same_as_before(spec: DatasetSpec, rows: int, span: pl.Expr) -> pl.Expr:
    """Rows that equal the one `rows` before in all measured columns, where that one stands `span` earlier."""
    same = [(pl.col(name) == pl.col(name).shift(rows).over("series_id")) for name in spec.names()]
    earlier = pl.col("time_utc") - pl.col("time_utc").shift(rows).over("series_id") == span
    return pl.all_horizontal(*same, earlier).fill_null(False)


def repeated(spec: DatasetSpec) -> pl.Expr:
    """Rows that equal the reading `repeated.after` earlier in every measured column. Needs a regular grid of rows."""
    rule = spec.quality.repeated
    if rule is None:
        return pl.lit(False)
    return _same_as_before(spec, rule.after // spec.raw_step, pl.lit(rule.after))


def frozen(spec: DatasetSpec) -> pl.Expr:
    """Rows of a run in which each equals its predecessor, where the run is at least `frozen.at_least` long.

    The run's first reading is not counted: it was measured. Needs a regular grid of rows.
    """
    rule = spec.quality.frozen
    if rule is None:
        return pl.lit(False)
    still = _same_as_before(spec, 1, pl.lit(spec.raw_step))
    length = pl.len().over("series_id", still.rle_id())
    return still & (length >= rule.at_least // spec.raw_step)


def regular_grid(table: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """The table with one row for each raw step from the first to the last of each series; new rows hold nulls."""
    if table.height == 0:
        return table
    spans = table.group_by("series_id").agg(first=pl.col("time_utc").min(), last=pl.col("time_utc").max())
    grid = (
        spans.sort("series_id")
        .with_columns(time_utc=pl.datetime_ranges("first", "last", interval=spec.raw_step))
        .select("series_id", "time_utc")
        .explode("time_utc")
    )
    return grid.join(table, on=KEY, how="left", maintain_order="left")


def masked(grid: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """The grid with its bad rows and bad values set to null: repeated rows, frozen runs, values out of range."""
    bad_row = repeated(spec) | frozen(spec)
    keep = {c.name: ~(bad_row | out_of_range(c.name, c.minimum, c.maximum)) for c in spec.columns}
    return grid.with_columns(pl.when(ok).then(pl.col(name)).alias(name) for name, ok in keep.items())


def clean(table: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """Readings on a regular grid with all that breaks a rule set to null: what the validate stage lets through."""
    good = table.filter(~(unreadable_time() | off_grid_time(spec)))
    return masked(regular_grid(good.filter(~duplicate_time()).sort(KEY), spec), spec)
