"""Windows over an hourly panel, gathered by index from resident tensors.

A window has an issue time t, the start of its first target hour. Its input are the `lookback` hours before t, its
target the `horizon` hours from t on. It is named by its origin: the panel's row at t.
"""

import datetime as dt
from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tutelage.calendar import calendar_features
from tutelage.dataset import DatasetSpec, Role
from tutelage.errors import DataError

LEAST_WINDOWS = 32
"""A part with fewer is nothing to learn from, to stop by or to judge on."""


@dataclass(frozen=True)
class Panel:
    """Hourly values of one or many series, one after the other along the first axis; NaN where there is no value.

    observed:  (hours, observed columns), the target first; in the columns' units
    known:     (hours, calendar features and known_future columns)
    auxiliary: (hours, privileged columns)
    minutes:   (hours, readings an hour), the target's deviation from its hourly mean
    series:    (hours,), the number of the series
    hour:      (hours,), hours since 1970-01-01 UTC
    """

    observed: Float[Tensor, "hours observed"]
    known: Float[Tensor, "hours known"]
    auxiliary: Float[Tensor, "hours auxiliary"]
    minutes: Float[Tensor, "hours readings"]
    series: Int64[Tensor, " hours"]
    hour: Int64[Tensor, " hours"]

    def to(self, device: torch.device) -> "Panel":
        """The same panel, resident on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class Span:
    """Hours from `start` up to, not including, `end`, both UTC."""

    start: dt.datetime
    end: dt.datetime

    @property
    def hours(self) -> range:
        """The span as hours since 1970-01-01 UTC."""
        return range(epoch_hour(self.start), epoch_hour(self.end))


@dataclass(frozen=True)
class Parts:
    """The chronological parts of a history. A window belongs to a part only if all its hours lie inside.

    So the issue times of two neighbouring parts stand lookback + horizon apart, and no hour is in windows of both.
    """

    train: Span
    validation: Span
    test: Span


def epoch_hour(time: dt.datetime) -> int:
    """Hours from 1970-01-01 UTC to an aware time, rounded down."""
    return int(time.timestamp() // 3600)


def make_panel(hours: pl.DataFrame, minutes: np.ndarray, spec: DatasetSpec) -> Panel:
    """Tensors of an hourly table (sorted by series and time, without gaps) and of the minutes of its hours."""

    def values(names: list[str]) -> Tensor:
        if not names:
            return torch.zeros(hours.height, 0)
        return torch.from_numpy(hours.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy().copy())

    known = [values(spec.names(Role.KNOWN_FUTURE))]
    known.insert(0, torch.from_numpy(calendar_features(hours["time_utc"], spec.calendar).to_numpy().copy()))
    series = hours["series_id"].rle_id().cast(pl.Int64).to_numpy().copy()
    hour = (hours["time_utc"].dt.epoch("s") // 3600).to_numpy().copy()
    return Panel(
        observed=values(spec.names(Role.OBSERVED)),
        known=torch.cat(known, dim=1),
        auxiliary=values(spec.names(Role.PRIVILEGED)),
        minutes=torch.from_numpy(minutes),
        series=torch.from_numpy(series),
        hour=torch.from_numpy(hour),
    )


def split(
    end: dt.datetime, *, start: dt.datetime, history_days: int | None, validation_share: float, test_days: int
) -> Parts:
    """Cut a history that ends at `end` into train, validation and test, in this order and on whole hours.

    The test part is the last `test_days`; before it come `history_days` (None: all since `start`), the last
    `validation_share` of which is the validation part.

    Raises DataError where the history is shorter than asked for.
    """
    test_start = end - dt.timedelta(days=test_days)
    available = (test_start - start) / dt.timedelta(days=1)
    days = available if history_days is None else history_days
    if days > available or available <= 0:
        raise DataError(
            f"the history is too short: {history_days or 'some'} days of history and {test_days} of test are asked "
            f"for, and from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} there are {(end - start).days}"
        )
    history_start = test_start - dt.timedelta(hours=int(days * 24))
    validation_start = test_start - dt.timedelta(hours=round(days * 24 * validation_share))
    return Parts(
        train=Span(history_start, validation_start),
        validation=Span(validation_start, test_start),
        test=Span(test_start, end),
    )


def _all_true_in_next(flags: Bool[Tensor, " hours"], length: int) -> Bool[Tensor, " starts"]:
    """For each start row with `length` rows from it on: whether the flags are true in all of them."""
    total = torch.cat([torch.zeros(1, dtype=torch.int64), flags.to(torch.int64).cumsum(0)])
    return (total[length:] - total[:-length]) == length


def window_origins(
    panel: Panel, span: Span, *, lookback: int, horizon: int, labelled: bool = True
) -> Int64[Tensor, " windows"]:
    """Origins of the windows that lie wholly inside a span and one series, and have no null that they would need.

    Needed are the observed values of the lookback, the known values and the target of the horizon. Without `labelled`
    they are the windows that have all of this but a target: it is null for one hour or more.
    """
    length = lookback + horizon
    if len(panel.hour) < length:
        return torch.zeros(0, dtype=torch.int64)
    hour, series = panel.hour.cpu(), panel.series.cpu()
    seen = panel.observed.isfinite().all(dim=1).cpu()
    known = panel.known.isfinite().all(dim=1).cpu()
    target = _all_true_in_next(panel.observed[:, 0].isfinite().cpu(), horizon)[lookback:]
    inside = (hour >= span.hours.start) & (hour < span.hours.stop)
    first = torch.arange(len(hour) - length + 1)
    good = (
        _all_true_in_next(seen, lookback)[: len(first)]
        & _all_true_in_next(known, horizon)[lookback:]
        & (target if labelled else ~target)
        & _all_true_in_next(inside, length)
        & (series[first] == series[first + length - 1])
    )
    return first[good] + lookback


def gather_past(values: Tensor, origins: Tensor, lookback: int) -> Tensor:
    """(windows, lookback, columns): the rows before each origin."""
    return values[origins[:, None] + torch.arange(-lookback, 0, device=values.device)]


def gather_future(values: Tensor, origins: Tensor, horizon: int) -> Tensor:
    """(windows, horizon, columns): the rows from each origin on."""
    return values[origins[:, None] + torch.arange(horizon, device=values.device)]
