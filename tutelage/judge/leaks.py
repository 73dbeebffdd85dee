"""The leak check: change data that a student must not see, and compare its forecasts.

Three kinds of changes to the raw readings must not change the forecast:

- privileged: replace any privileged column by noise or by nulls; the forecast must be bit-identical
- future: replace values from the issue time on, except known_future columns; the forecast must be bit-identical
- detail: reorder the readings within each hour, which keeps the hourly values; the forecast may change by 1e-6
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from tutelage.data.dataset import KEY, DatasetSpec, Role
from tutelage.data.quality import clean
from tutelage.data.resample import student_table
from tutelage.data.steps import begin_of
from tutelage.errors import LeakError

DETAIL_TOLERANCE = 1e-6
CHECKED_TIMES = 8
"""Number of issue times to check a student at."""

Forecast = Callable[[pl.DataFrame, list[dt.datetime]], Float[np.ndarray, "times *rest"]]
"""(one series' raw readings, issue times) → forecasts."""


@dataclass(frozen=True)
class LeakReport:
    """The result of a leak check.

    checked: number of forecasts from changed readings, one for each change and issue time
    faults: one sentence for each change that changed a forecast
    """

    checked: int
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no change changed a forecast."""
        return not self.faults

    def require(self) -> None:
        """Raise LeakError with all faults where a change changed a forecast."""
        if self.faults:
            raise LeakError("the student sees data that it must not see: " + "; ".join(self.faults))


def _noised(name: str, rng: np.random.Generator, rows: int) -> pl.Series:
    return pl.Series(name, rng.uniform(0.0, 1.0, rows))


def _within_range(spec: DatasetSpec, name: str, share: pl.Series) -> pl.Series:
    """Values of a column inside its valid range, from shares of it: no range check can remove the change."""
    column = next(c for c in spec.columns if c.name == name)
    return column.minimum + share * (column.maximum - column.minimum)


def _change_after(readings: pl.DataFrame, spec: DatasetSpec, issue_time: dt.datetime, seed: int) -> pl.DataFrame:
    """Replace all values from the issue time on by random ones, except known_future columns."""
    rng = np.random.default_rng(seed)
    names = spec.names(Role.OBSERVED, Role.PRIVILEGED)
    after = pl.col("time_utc") >= pl.lit(issue_time)
    fresh = [_within_range(spec, n, _noised(n, rng, readings.height)).alias(f"{n}:new") for n in names]
    changed = readings.with_columns(fresh).with_columns(
        pl.when(after).then(pl.col(f"{n}:new")).otherwise(pl.col(n)).alias(n) for n in names
    )
    return changed.select(readings.columns)


def _reorder_within(readings: pl.DataFrame, spec: DatasetSpec, seed: int) -> pl.DataFrame:
    """Reorder the observed readings within each step of the student at random."""
    names = spec.names(Role.OBSERVED)
    step = ["series_id", begin_of(spec.student_step, pl.col("time_utc"), spec)]
    order = pl.Series("order", np.random.default_rng(seed).permutation(readings.height))
    return readings.with_columns(order).with_columns(pl.col(names).sort_by(pl.col("order")).over(step)).drop("order")


def check_leaks(
    forecast: Forecast,
    readings: pl.DataFrame,
    spec: DatasetSpec,
    issue_times: list[dt.datetime],
    *,
    seed: int,
) -> LeakReport:
    """Apply each change separately, and compare the forecasts with those from unchanged readings.

    Privileged columns must not even change which readings the quality rules mask. The other changes are made to the
    readings `without_masked`: changed, the neighbour of a masked reading could unmask it, and that is no leak.

    readings: one series' raw readings, before and after the issue times
    """
    truth = forecast(readings, issue_times)
    faults: list[str] = []
    checked = 0
    rng = np.random.default_rng(seed)

    def compare(what: str, changed: np.ndarray, unchanged: np.ndarray, tolerance: float) -> None:
        nonlocal checked
        checked += len(unchanged)
        if changed.shape != unchanged.shape or not np.isfinite(changed).all():
            faults.append(f"{what}: the forecast breaks")
        elif (worst := float(np.abs(changed - unchanged).max())) > tolerance:
            faults.append(f"{what}: the forecast moves by up to {worst:.3g}")

    for name in spec.names(Role.PRIVILEGED):
        noised = _within_range(spec, name, _noised(name, rng, readings.height)).alias(name)
        gone = pl.lit(None, pl.Float64).alias(name)
        compare(
            f"privileged column {name} changed",
            forecast(readings.with_columns(noised), issue_times),
            truth,
            0.0,
        )
        compare(f"privileged column {name} removed", forecast(readings.with_columns(gone), issue_times), truth, 0.0)
    readings = without_masked(readings, spec)
    for row, time in enumerate(issue_times):
        changed = forecast(_change_after(readings, spec, time, seed + row), [time])
        compare(f"values from {time:%Y-%m-%d %H:%M} UTC on changed", changed, truth[row : row + 1], 0.0)
    reordered = forecast(_reorder_within(readings, spec, seed), issue_times)
    compare("readings reordered within their steps", reordered, truth, DETAIL_TOLERANCE)
    return LeakReport(checked, tuple(faults))


def without_masked(series: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """One series' raw readings, with null for every observed value that a quality rule masks.

    Forecasts stay the same.
    """
    names = spec.names(Role.OBSERVED)
    cleaned = clean(series.sort(KEY), spec).select(*KEY, *(pl.col(name).alias(f"{name}:clean") for name in names))
    joined = series.join(cleaned, on=KEY, how="left", maintain_order="left")
    return joined.with_columns(
        pl.when(pl.col(f"{name}:clean").is_not_null()).then(pl.col(name)).alias(name) for name in names
    ).select(series.columns)


def clean_issue_times(
    series: pl.DataFrame,
    spec: DatasetSpec,
    start: dt.datetime,
    end: dt.datetime,
    *,
    lookback_hours: int,
    horizon_hours: int,
) -> list[dt.datetime]:
    """Up to CHECKED_TIMES issue times, spread evenly, with a value in every step of the lookback.

    series: raw readings

    Raises LeakError where there is no such time: a student that can't be checked is not registered.
    """
    hours = student_table(clean(series.sort(KEY), spec), spec)
    good = pl.all_horizontal(pl.col(spec.names(Role.OBSERVED)).is_not_null())
    lookback = spec.grid.steps(lookback_hours, called="lookback_hours")
    whole = good.cast(pl.Int64).rolling_sum(lookback).shift(1) == lookback
    inside = pl.col("time_utc").is_between(
        start + dt.timedelta(hours=lookback_hours), end - dt.timedelta(hours=horizon_hours)
    )
    times = hours.filter(whole & inside)["time_utc"].to_list()
    if not times:
        raise LeakError(
            f"the student can't be checked for leaks: nowhere in the test part have all steps of the {lookback_hours} "
            "hours before an issue time a value; take more test days, or a shorter lookback"
        )
    step = max(1, len(times) // CHECKED_TIMES)
    return times[step // 2 :: step][:CHECKED_TIMES]
