"""The leak guard: change what a student must not see, and watch its forecast.

From raw readings to forecast, three kinds of change must leave nothing behind:

- privileged: any privileged column, replaced by noise or gone altogether: the forecast stays bit-identical
- future: any value from the issue time on, known_future columns aside: bit-identical
- detail: the readings of each hour in another order, so that the hourly values stay: within 1e-6
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from tutelage.dataset import DatasetSpec, Role
from tutelage.errors import LeakError

DETAIL_TOLERANCE = 1e-6

Forecast = Callable[[pl.DataFrame, list[dt.datetime]], Float[np.ndarray, "times *rest"]]
"""(one series' raw readings, issue times) → forecasts."""


@dataclass(frozen=True)
class LeakReport:
    """What was changed, how often it was looked at, and what left a trace.

    checked: perturbed forecasts, one for each change and issue time
    faults: one sentence a change that left a trace
    """

    checked: int
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no change left a trace."""
        return not self.faults

    def require(self) -> None:
        """Raises LeakError with all faults where a change left a trace."""
        if self.faults:
            raise LeakError("the student sees what it must not: " + "; ".join(self.faults))


def _noised(name: str, rng: np.random.Generator, rows: int) -> pl.Series:
    return pl.Series(name, rng.uniform(0.0, 1.0, rows))


def _within_range(spec: DatasetSpec, name: str, share: pl.Series) -> pl.Series:
    """Random values of a column, inside its valid range: a change that no range check would give away."""
    column = next(c for c in spec.columns if c.name == name)
    return column.minimum + share * (column.maximum - column.minimum)


def _change_after(readings: pl.DataFrame, spec: DatasetSpec, issue_time: dt.datetime, seed: int) -> pl.DataFrame:
    """All values from the issue time on replaced by random ones of their column, known_future columns aside."""
    rng = np.random.default_rng(seed)
    names = spec.names(Role.OBSERVED, Role.PRIVILEGED)
    after = pl.col("time_utc") >= pl.lit(issue_time)
    fresh = [_within_range(spec, n, _noised(n, rng, readings.height)).alias(f"{n}:new") for n in names]
    changed = readings.with_columns(fresh).with_columns(
        pl.when(after).then(pl.col(f"{n}:new")).otherwise(pl.col(n)).alias(n) for n in names
    )
    return changed.select(readings.columns)


def _reorder_hours(readings: pl.DataFrame, spec: DatasetSpec, seed: int) -> pl.DataFrame:
    """The observed readings of each complete hour in a random order."""
    names = spec.names(Role.OBSERVED)
    hour = ["series_id", pl.col("time_utc").dt.truncate("1h")]
    order = pl.Series("order", np.random.default_rng(seed).permutation(readings.height))
    return readings.with_columns(order).with_columns(pl.col(names).sort_by(pl.col("order")).over(hour)).drop("order")


def check_leaks(
    forecast: Forecast,
    readings: pl.DataFrame,
    spec: DatasetSpec,
    issue_times: list[dt.datetime],
    *,
    seed: int,
) -> LeakReport:
    """Change what must not matter, one thing at a time, and compare the forecasts with the unchanged ones.

    `readings` are one series' raw readings, before and after the issue times.
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
        compare(f"privileged column {name} gone", forecast(readings.with_columns(gone), issue_times), truth, 0.0)
    for row, time in enumerate(issue_times):
        changed = forecast(_change_after(readings, spec, time, seed + row), [time])
        compare(f"values from {time:%Y-%m-%d %H:%M} UTC on changed", changed, truth[row : row + 1], 0.0)
    reordered = forecast(_reorder_hours(readings, spec, seed), issue_times)
    compare("readings reordered within their hours", reordered, truth, DETAIL_TOLERANCE)
    return LeakReport(checked, tuple(faults))
