"""Windows over a panel of equal steps, gathered by index from tensors on one device.

A window has an issue time t, the start of its first target step. Its inputs are the `lookback` steps before t, its
targets the `horizon` steps from t on. A window is identified by its origin, the panel's row at t.
"""

import datetime as dt
import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tutelage.data.calendar import calendar_features
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.grid import HOUR, HOURLY, Grid
from tutelage.data.inputs import fill_gaps
from tutelage.data.issued import last_measured
from tutelage.data.quality import clean
from tutelage.data.readings import read_readings
from tutelage.data.resample import readings_within, student_table
from tutelage.data.sizes import Sizes, in_sizes
from tutelage.data.source import source_files
from tutelage.data.steps import number_of
from tutelage.errors import DataError

WEEK_HOURS = 7 * 24
LEAST_WINDOWS = 32
"""A part with fewer is too small for training, early stopping or evaluation."""


@dataclass(frozen=True)
class Panel:
    """Values of one or more series by step, concatenated along the first axis; NaN where there is no value.

    observed:  (steps, observed columns), the target first; in the columns' units
    known:     (steps, calendar features and known_future columns)
    auxiliary: (steps, privileged columns), in the columns' units
    minutes:   (steps, readings per step), the target's deviation from its step's mean
    series:    (steps,), the number of the series
    step:      (steps,), the number of the step on the grid
    filled:    (steps, observed columns), observed with its gaps filled as a forecast fills them; None: they stay
    most_filled: greatest number of steps that a window's past may have filled, as in a forecast
    grid: how long the steps are, and where they begin
    names: the series' ids by number
    sizes: of several series, what the values of the target, and of columns in its unit, are divided by
    """

    observed: Float[Tensor, "steps observed"]
    known: Float[Tensor, "steps known"]
    auxiliary: Float[Tensor, "steps auxiliary"]
    minutes: Float[Tensor, "steps readings"]
    series: Int64[Tensor, " steps"]
    step: Int64[Tensor, " steps"]
    filled: Float[Tensor, "steps observed"] | None = None
    most_filled: int = 0
    grid: Grid = HOURLY
    names: tuple[str, ...] = ()
    sizes: Sizes | None = None

    @property
    def seen(self) -> Float[Tensor, "steps observed"]:
        """What a window sees of the past: the observed values, their gaps filled."""
        return self.observed if self.filled is None else self.filled

    def names_at(self, rows: Int64[Tensor, " rows"]) -> list[str]:
        """The id of each row's series; empty for series of other sites."""
        numbers = self.series[rows].tolist()
        return [self.names[number] if number < len(self.names) else "" for number in numbers]

    def size_at(self, rows: Int64[Tensor, " rows"]) -> Float[np.ndarray, " rows"]:
        """The size of each row's series."""
        if self.sizes is None:
            return np.ones(len(rows))
        return np.array([self.sizes.of_series.get(name, 1.0) for name in self.names_at(rows)])

    def to(self, device: torch.device) -> "Panel":
        """The same panel on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {n: value.to(device) for n, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Span:
    """The time from `start` up to, not including, `end`, both UTC."""

    start: dt.datetime
    end: dt.datetime

    def steps(self, grid: Grid) -> range:
        """The numbers of the span's steps."""
        return range(grid.index(self.start), grid.index(self.end))


@dataclass(frozen=True)
class Parts:
    """The chronological parts of a history. A window belongs to the part that holds all steps of its target.

    Its past may reach back into earlier parts, as it does in production, but not before the history. So no target step
    is in windows of two parts, and a window is in none if its target reaches across the boundary of two.
    """

    train: Span
    validation: Span
    test: Span


def make_panel(hours: pl.DataFrame, minutes: np.ndarray, spec: DatasetSpec, sizes: Sizes | None = None) -> Panel:
    """A panel from the student's table (sorted by series and time, without gaps) and the readings within its steps.

    sizes: those of the series (`find_sizes`); None: all values stay in their units
    """
    if sizes is not None:
        hours, minutes = in_sizes(hours, minutes, sizes)

    def values(names: list[str], table: pl.DataFrame = hours) -> Tensor:
        if not names:
            return torch.zeros(hours.height, 0)
        return torch.from_numpy(table.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy().copy())

    filled = values(spec.names(Role.OBSERVED), fill_gaps(hours, spec, spec.names(Role.OBSERVED)))
    known = [values(spec.names(Role.KNOWN_FUTURE))]
    known.insert(0, torch.from_numpy(calendar_features(hours["time_utc"], spec.calendar).to_numpy().copy()))
    series = hours["series_id"].rle_id().cast(pl.Int64).to_numpy().copy()
    step = hours.select(number_of(pl.col("time_utc"), spec.grid)).to_series().to_numpy().copy()
    return Panel(
        observed=values(spec.names(Role.OBSERVED)),
        known=torch.cat(known, dim=1),
        auxiliary=values(spec.names(Role.PRIVILEGED)),
        minutes=torch.from_numpy(minutes),
        series=torch.from_numpy(series),
        step=torch.from_numpy(step),
        filled=filled,
        most_filled=spec.serving.at_most_hours * HOUR // spec.student_step,
        grid=spec.grid,
        names=tuple(hours["series_id"].unique(maintain_order=True).to_list()),
        sizes=sizes,
    )


def read_panel(spec: DatasetSpec) -> tuple[Panel, dt.datetime, dt.datetime]:
    """A dataset's panel with bad values masked, the start of its first step and the end of its last, UTC."""
    hours, minutes = read_table(spec)
    return make_panel(hours, minutes, spec), *ends_of(hours, spec)


def read_table(spec: DatasetSpec, ahead_hours: int | None = None) -> tuple[pl.DataFrame, np.ndarray]:
    """The student's table of a dataset with bad values masked, and the readings within its steps.

    ahead_hours: see `tutelage.data.readings.read_readings`
    """
    grid = clean(read_readings(source_files(spec.source), spec, ahead_hours=ahead_hours), spec)
    hours = student_table(grid, spec)
    return hours, readings_within(grid, hours, spec)


def ends_of(hours: pl.DataFrame, spec: DatasetSpec) -> tuple[dt.datetime, dt.datetime]:
    """The start of a table's first step and the end of the last one with a measured value, UTC."""
    first, last = hours["time_utc"].min(), last_measured(hours, spec)
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    return first, last + spec.student_step


def split(
    end: dt.datetime,
    *,
    start: dt.datetime,
    history_days: int | None,
    validation_share: float,
    test_days: int,
    grid: Grid = HOURLY,
) -> Parts:
    """Cut a history that ends at `end` into train, validation and test, in this order, where steps begin.

    The test part is the last `test_days`; before it come `history_days` (None: all since `start`), whose last
    `validation_share` is the validation part.

    Raises DataError where the history is too short.
    """
    test_start = end - dt.timedelta(days=test_days)
    available = (test_start - start) / dt.timedelta(days=1)
    days = available if history_days is None else history_days
    if days > available or available <= 0:
        raise DataError(
            f"the history is too short: {history_days or 'some'} days of history and {test_days} of test are "
            f"requested, but from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} there are only {(end - start).days}"
        )
    history_start = test_start - int(days * grid.of_day) * grid.step
    validation_start = test_start - round(days * grid.of_day * validation_share) * grid.step
    return Parts(
        train=Span(history_start, validation_start),
        validation=Span(validation_start, test_start),
        test=Span(test_start, end),
    )


def _true_in_next(flags: Bool[Tensor, " steps"], length: int) -> Int64[Tensor, " starts"]:
    """For each row that starts `length` rows: in how many of them the flags are true."""
    total = torch.cat([torch.zeros(1, dtype=torch.int64), flags.to(torch.int64).cumsum(0)])
    return total[length:] - total[:-length]


def _all_true_in_next(flags: Bool[Tensor, " steps"], length: int) -> Bool[Tensor, " starts"]:
    """For each row that starts `length` rows: whether the flags are true in all of them."""
    return _true_in_next(flags, length) == length


def window_origins(
    panel: Panel,
    span: Span,
    *,
    lookback: int,
    horizon: int,
    start: dt.datetime | None = None,
    labelled: bool = True,
) -> Int64[Tensor, " windows"]:
    """Origins of the windows whose target lies inside a span, and that have all the values that they need.

    A window needs the observed values of its lookback, of which as many may be filled as in a forecast, and the
    known values and the target of its horizon, all of one series. With `labelled` false, only windows whose target is
    null for one step or more, but that are complete otherwise.

    lookback, horizon: steps
    start: the past may reach back to there, UTC; None: to the start of the span
    """
    length = lookback + horizon
    if len(panel.step) < length:
        return torch.zeros(0, dtype=torch.int64)
    step, series = panel.step.cpu(), panel.series.cpu()
    seen = panel.seen.isfinite().all(dim=1).cpu()
    gap = ~panel.observed.isfinite().all(dim=1).cpu()
    known = panel.known.isfinite().all(dim=1).cpu()
    target = _all_true_in_next(panel.observed[:, 0].isfinite().cpu(), horizon)[lookback:]
    steps = span.steps(panel.grid)
    inside = (step >= steps.start) & (step < steps.stop)
    reached = step >= (steps.start if start is None else panel.grid.index(start))
    first = torch.arange(len(step) - length + 1)
    good = (
        _all_true_in_next(seen, lookback)[: len(first)]
        & (_true_in_next(gap, lookback)[: len(first)] <= panel.most_filled)
        & _all_true_in_next(known, horizon)[lookback:]
        & (target if labelled else ~target)
        & _all_true_in_next(inside, horizon)[lookback:]
        & reached[: len(first)]
        & (series[first] == series[first + length - 1])
    )
    return first[good] + lookback


def spread_step(windows: int, most: int) -> int:
    """The distance at which to take no more than `most` of windows that follow step by step.

    It shares no divisor with the hours of a week, so that the windows taken are of all hours of all its days.
    """
    distance = max(1, -(-windows // most))
    while math.gcd(distance, WEEK_HOURS) > 1:
        distance += 1
    return distance


def thinned(panel: Panel, origins: Int64[Tensor, " windows"], most: int) -> Int64[Tensor, " fewer"]:
    """At most `most` of the windows of several series: those of every k-th step, another phase for each series."""
    distance = spread_step(len(origins), most)
    step, series = panel.step.cpu()[origins], panel.series.cpu()[origins]
    return origins[(step + series) % distance == 0][:most]


def gather_past(values: Tensor, origins: Tensor, lookback: int) -> Tensor:
    """The `lookback` rows before each origin: (windows, lookback, columns)."""
    return values[origins[:, None] + torch.arange(-lookback, 0, device=values.device)]


def gather_long_past(
    panel: Panel, origins: Tensor, lookback: int, *, first_step: int, complete: int
) -> Float[Tensor, "windows lookback observed"]:
    """The observed values of the `lookback` steps before each origin, whether or not they are all there.

    NaN where there is no value, before the step `first_step`, and before the first step of the series; of the last
    `complete` hours the gaps are filled.
    """
    rows = origins[:, None] + torch.arange(-lookback, 0, device=origins.device)
    inside = rows.clamp(min=0)
    usable = (rows >= 0) & (panel.series[inside] == panel.series[origins][:, None]) & (panel.step[inside] >= first_step)
    values = panel.observed[inside]
    if complete and panel.filled is not None:
        values[:, -complete:] = panel.filled[inside[:, -complete:]]
    return torch.where(usable.unsqueeze(-1), values, torch.nan)


def gather_future(values: Tensor, origins: Tensor, horizon: int) -> Tensor:
    """The `horizon` rows from each origin on: (windows, horizon, columns)."""
    return values[origins[:, None] + torch.arange(horizon, device=values.device)]
