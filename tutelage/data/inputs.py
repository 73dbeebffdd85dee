"""The input of a forecast: the latest steps up to an issue time, missing ones filled by the spec's rule."""

import datetime as dt

import polars as pl

from tutelage.data.dataset import KEY, DatasetSpec, Role
from tutelage.data.grid import HOUR
from tutelage.data.issued import has_reading
from tutelage.data.quality import clean, reach
from tutelage.data.resample import student_table
from tutelage.data.steps import step_of

SEASONS_DAYS = range(1, 8)
"""A missing value may be that of any of these numbers of days before."""
LONGEST_HOURS = 24 * SEASONS_DAYS[-1]


def issue_time(readings: pl.DataFrame, spec: DatasetSpec, as_of: dt.datetime | None) -> dt.datetime:
    """The first step to forecast, UTC: `as_of` rounded down to the step; None: the end of the readings instead."""
    last = readings.filter(has_reading(spec))["time_utc"].max()
    assert isinstance(last, dt.datetime)
    return spec.grid.floor(last + step_of(spec, last) if as_of is None else as_of)


def recent_steps(
    readings: pl.DataFrame,
    spec: DatasetSpec,
    issued: dt.datetime,
    *,
    lookback_hours: int,
    complete_hours: int,
    horizon_hours: int,
) -> pl.DataFrame:
    """What a forecast issued at `issued` (UTC, the start of a step) needs, one row per student's step and series.

    Columns: series_id, time_utc, the observed columns, the known_future columns, missing, filled. The rows of the
    lookback come first; where there are known_future columns, the rows of the horizon follow, with null observed
    columns. `missing` is true where a step of the lookback lacks an observed value. In the last `complete_hours` the
    spec's rule then fills it (`filled` is true), or it stays null; earlier steps stay null, as in training. No reading
    from `issued` on is used, except known_future columns, which no model sees in the past, so gaps there stay.
    """
    observed, known = spec.names(Role.OBSERVED), spec.names(Role.KNOWN_FUTURE)
    past = steps_before(readings.filter(pl.col("time_utc") < issued), spec, issued, lookback_hours + LONGEST_HOURS)
    bare = pl.all_horizontal(pl.col(observed).is_not_null())
    table = past.with_columns(missing=~bare)
    filled = fill_gaps(table, spec, observed, since=issued - complete_hours * HOUR)
    filled = filled.filter(pl.col("time_utc") >= issued - lookback_hours * HOUR).with_columns(
        filled=pl.col("missing") & bare
    )
    if not known:
        return filled.select(*KEY, *observed, "missing", "filled")
    end = issued + horizon_hours * HOUR
    later = readings.filter(pl.col("time_utc").is_between(issued, end, closed="left"))
    nothing = [pl.lit(None, pl.Float64).alias(name) for name in spec.names() if name not in known]
    ahead = steps_before(later.with_columns(nothing), spec, end, horizon_hours).with_columns(
        missing=False, filled=False
    )
    columns = [*KEY, *observed, *known, "missing", "filled"]
    return pl.concat([filled.select(columns), ahead.select(columns)]).sort(KEY)


def steps_before(readings: pl.DataFrame, spec: DatasetSpec, end: dt.datetime, hours: int) -> pl.DataFrame:
    """The cleaned last `hours` of each series before `end`, one row per student's step; null where it has no readings.

    end: UTC, the start of a step
    """
    start = end - hours * HOUR
    near = readings.filter(pl.col("time_utc") >= start - reach(spec))
    series = readings.select("series_id").unique().sort("series_id")
    grid = series.join(
        pl.DataFrame({"time_utc": pl.datetime_range(start, end, spec.student_step, closed="left", eager=True)}),
        how="cross",
    )
    table = student_table(clean(near, spec), spec) if near.height else near.select(*KEY, *spec.names())
    return grid.with_columns(pl.col("time_utc").dt.cast_time_unit("us")).join(
        table, on=KEY, how="left", maintain_order="left"
    )


def fill_gaps(
    hours: pl.DataFrame, spec: DatasetSpec, names: list[str], *, since: dt.datetime | None = None
) -> pl.DataFrame:
    """A table of the student's steps, with nulls of these columns filled by the spec's rule, from earlier steps.

    since: earlier rows stay as they are, UTC; None: all are filled
    """
    near = pl.lit(True) if since is None else pl.col("time_utc") >= since
    return hours.with_columns(
        pl.when(near).then(_filled(name, spec)).otherwise(pl.col(name)).alias(name) for name in names
    )


def _filled(name: str, spec: DatasetSpec) -> pl.Expr:
    """A column with nulls filled by the spec's rule, series by series, from earlier steps only."""
    value = pl.col(name)
    if spec.serving.missing_hours == "season":
        return pl.coalesce(value, *(value.shift(days * spec.grid.of_day).over("series_id") for days in SEASONS_DAYS))
    if spec.serving.missing_hours == "last":
        return value.forward_fill().over("series_id")
    return value
