"""The step of the readings over time: a spec may name times from which on it is another one."""

import datetime as dt
from collections.abc import Callable

import polars as pl

from tutelage.data.dataset import DatasetSpec
from tutelage.data.grid import MINUTE, SECOND, Grid


def first_begin(spec: DatasetSpec) -> dt.timedelta:
    """From midnight UTC to where the day's first step of the student begins on the spec's clock."""
    return spec.grid.begin_minute * MINUTE


def begin_of(step: dt.timedelta, time: pl.Expr, spec: DatasetSpec) -> pl.Expr:
    """The beginning of the step that a time is in; raw steps begin with those of the student."""
    begin = first_begin(spec)
    return (time - begin).dt.truncate(step) + begin if begin else time.dt.truncate(step)


def number_of(time: pl.Expr, grid: Grid) -> pl.Expr:
    """The number of the student's step that a time is in."""
    return (time - pl.lit(grid.time(0)).cast(pl.Datetime("us", "UTC"))).dt.total_seconds() // (grid.step // SECOND)


def step_spans(spec: DatasetSpec) -> list[tuple[dt.timedelta, dt.datetime | None, dt.datetime | None]]:
    """Each step with the times from and until which it holds, UTC; None: from the first, until the last reading."""
    steps = [spec.raw_step, *(change.raw_step for change in spec.step_changes)]
    bounds = [None, *(change.since.astimezone(dt.UTC) for change in spec.step_changes), None]
    return list(zip(steps, bounds, bounds[1:], strict=False))


def step_at(spec: DatasetSpec, time: pl.Expr) -> pl.Expr:
    """The step that holds at a time; at a null time the first one."""
    step = pl.lit(spec.raw_step)
    for change in spec.step_changes:
        step = pl.when(time >= pl.lit(change.since).dt.convert_time_zone("UTC")).then(change.raw_step).otherwise(step)
    return step


def step_of(spec: DatasetSpec, time: dt.datetime) -> dt.timedelta:
    """The step that holds at an aware time."""
    return [spec.raw_step, *(change.raw_step for change in spec.step_changes if change.since <= time)][-1]


def by_step(spec: DatasetSpec, rule: Callable[[dt.timedelta], pl.Expr]) -> pl.Expr:
    """A rule that depends on the step, for each row by the step of its time."""
    if not spec.step_changes:
        return rule(spec.raw_step)
    here = step_at(spec, pl.col("time_utc"))
    return pl.any_horizontal((here == step) & rule(step) for step in {step for step, _, _ in step_spans(spec)})
