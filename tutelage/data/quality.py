"""The quality rules, one boolean expression each, and the cleaning that they lead to.

A rule's expression is true where a row (or a value) breaks the rule. A rule reads a row and earlier rows, never later
ones: a forecast issued at noon can't know from the afternoon which of its inputs were bad. (`repeated`, `frozen` and
`flat` mark a whole run, and so look ahead to its end; `inference.student_window` cuts the readings at the issue time
before it applies the rules. Where the spec keeps the last of several rows with one time, a later row replaces an
earlier.)
"""

import datetime as dt

import polars as pl

from tutelage.data.dataset import KEY, DatasetSpec, Role
from tutelage.data.steps import begin_of, by_step, step_spans

ROUNDING = 1e-9
"""Differences of decimals, such as 0.03 − 0.01, miss by less than this."""
STEADY_STEPS = 24
QUARANTINED = ("unreadable_time", "off_grid_time", "duplicate_time")


def unreadable_time() -> pl.Expr:
    """Rows whose time can't be read or does not exist on the local clock."""
    return pl.col("time_utc").is_null()


def off_grid_time(spec: DatasetSpec) -> pl.Expr:
    """Rows whose time is no multiple of the raw step, on the spec's clock."""
    time = pl.col("time_utc")
    return by_step(spec, lambda step: (time != begin_of(step, time, spec)).fill_null(False))


def duplicate_time(spec: DatasetSpec) -> pl.Expr:
    """Rows whose key appears in another row; the first, or by the spec the last, of them is not marked."""
    key = pl.struct(KEY)
    stays = key.is_first_distinct() if spec.quality.duplicate_time.keep == "first" else key.is_last_distinct()
    return ~stays & pl.col("time_utc").is_not_null()


def out_of_range(name: str, minimum: float, maximum: float) -> pl.Expr:
    """Values outside the valid range; null is not out of range."""
    return (~pl.col(name).is_between(minimum, maximum)).fill_null(False)


def _same_as_before(spec: DatasetSpec, rows: int, span: pl.Expr) -> pl.Expr:
    """Rows equal in all observed columns to the row `rows` before, where that row is `span` earlier.

    Production may lack all other columns, and what is masked there and in training must be the same.
    """
    same = [(pl.col(name) == pl.col(name).shift(rows).over("series_id")) for name in spec.names(Role.OBSERVED)]
    earlier = pl.col("time_utc") - pl.col("time_utc").shift(rows).over("series_id") == span
    return pl.all_horizontal(*same, earlier).fill_null(False)


def repeated(spec: DatasetSpec) -> pl.Expr:
    """Rows of a run of at least `repeated.at_least` that each equal the reading `repeated.after` earlier.

    Needs a regular grid of rows.
    """
    rule = spec.quality.repeated
    if rule is None:
        return pl.lit(False)

    def of_step(step: dt.timedelta) -> pl.Expr:
        same = _same_as_before(spec, rule.after // step, pl.lit(rule.after))
        return same & (_run_length(same) >= rule.at_least // step)

    return by_step(spec, of_step)


def _run_length(flag: pl.Expr) -> pl.Expr:
    """The number of rows in each row's run of equal flags, series by series."""
    return pl.len().over("series_id", flag.rle_id())


def frozen(spec: DatasetSpec) -> pl.Expr:
    """Rows of a run of at least `frozen.at_least` in which each row equals its predecessor.

    The run's first reading is not marked: it was measured. Needs a regular grid of rows.
    """
    rule = spec.quality.frozen
    if rule is None:
        return pl.lit(False)

    def of_step(step: dt.timedelta) -> pl.Expr:
        still = _same_as_before(spec, 1, pl.lit(step))
        return still & (_run_length(still) >= rule.at_least // step)

    return by_step(spec, of_step)


def flat(spec: DatasetSpec) -> pl.Expr:
    """Values of the target in a run of at least `flat.at_least` that stays within `flat.within`.

    Other columns may move: a stuck sensor next to living ones. Needs a regular grid of rows; a null ends a run.
    """
    rule = spec.quality.flat
    if rule is None:
        return pl.lit(False)
    target = pl.col(spec.target)

    def of_step(step: dt.timedelta) -> pl.Expr:
        rows = max(2, rule.at_least // step)
        width = target.rolling_max(rows) - target.rolling_min(rows)
        ends = (width.over("series_id") <= rule.within + ROUNDING).fill_null(False).cast(pl.Int8)
        # Each row of a run that is long enough, not only those that end one.
        return ends.reverse().rolling_max(rows, min_samples=1).reverse().over("series_id") == 1

    return by_step(spec, of_step)


def step_change(table: pl.DataFrame) -> tuple[dt.datetime, dt.timedelta, dt.timedelta] | None:
    """Where the readings of a series go over to another step for good: the time, the step before it and the step after.

    Both last for STEADY_STEPS or more. None: nowhere.
    """
    times = table.drop_nulls("time_utc").unique(KEY).sort(KEY)
    steps = times.select(*KEY, step=pl.col("time_utc").diff().shift(-1).over("series_id")).drop_nulls()
    runs = (
        steps.with_columns(run=pl.col("step").rle_id().over("series_id"))
        .group_by("series_id", "run", maintain_order=True)
        .agg(pl.col("step").first(), since=pl.col("time_utc").first(), rows=pl.len())
        .filter(pl.col("rows") >= STEADY_STEPS)
        .with_columns(before=pl.col("step").shift(1).over("series_id"))
        .filter(pl.col("before") != pl.col("step"))
    )
    return None if runs.is_empty() else (runs["since"][0], runs["before"][0], runs["step"][0])


def reach(spec: DatasetSpec) -> dt.timedelta:
    """How far back from a row the rules look: a run that is long enough may have begun there."""
    rules = spec.quality
    spans = [rule.at_least for rule in (rules.frozen, rules.flat) if rule is not None]
    if rules.repeated is not None:
        spans.append(rules.repeated.after + rules.repeated.at_least)
    return max(spans, default=dt.timedelta(0)) + max(step for step, _, _ in step_spans(spec))


def regular_grid(table: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """The table with one row per raw step of each series, from its first row to its last; new rows hold nulls."""
    if table.height == 0:
        return table
    spans = table.group_by("series_id").agg(first=pl.col("time_utc").min(), last=pl.col("time_utc").max())
    grids = []
    for step, since, until in step_spans(spec):
        first = pl.col("first") if since is None else pl.max_horizontal("first", pl.lit(since))
        last = pl.col("last") if until is None else pl.min_horizontal("last", pl.lit(until - step))
        inside = spans.with_columns(first=first, last=last).filter(pl.col("first") <= pl.col("last"))
        times = pl.datetime_ranges("first", "last", interval=step, time_unit="us")
        grids.append(inside.select("series_id", time_utc=times).explode("time_utc"))
    grid = pl.concat(grids).sort(KEY)
    return grid.join(table, on=KEY, how="left", maintain_order="left")


def masked(grid: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """The grid with repeated rows, frozen and flat runs and values out of range set to null."""
    bad_row = pl.lit(grid.select(repeated(spec) | frozen(spec)).to_series())
    keep = {c.name: ~(bad_row | out_of_range(c.name, c.minimum, c.maximum)) for c in spec.columns}
    keep[spec.target] &= ~flat(spec)
    return grid.with_columns(pl.when(ok).then(pl.col(name)).alias(name) for name, ok in keep.items())


def clean(table: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """Readings on a regular grid, with everything that breaks a rule set to null, as the validate stage writes them."""
    good = table.filter(~(unreadable_time() | off_grid_time(spec)))
    return masked(regular_grid(good.filter(~duplicate_time(spec)).sort(KEY), spec), spec)
