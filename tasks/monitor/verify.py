"""Verification of stored forecasts against actual values."""

import datetime as dt
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from runtime.health import ASKED, HEALTH, asked_before, health_folder
from runtime.paths import home
from runtime.stage import stage
from schemas.forecast import ChampionManifest
from schemas.monitor import HealthManifest
from tutelage.data.dataset import KEY, DatasetSpec
from tutelage.data.inputs import issue_time
from tutelage.data.quality import clean
from tutelage.data.readings import read_readings
from tutelage.data.resample import student_table
from tutelage.errors import DataError
from tutelage.files import folder_written_whole, write_json
from tutelage.forecasts import QUANTILE_NAMES
from tutelage.judge.monitoring import SPREAD_DAYS, broken_limits, input_drift, rolling_health, verified_hours
from tutelage.judge.plots import plot_health

SHOWN_WINDOWS = 8
NOTHING: dict[str, Any] = {"hours": 0, "skill": None, "coverage_80": None}


@stage("verify forecasts", run_name="verify {champion.name}")
def verify_forecasts(
    files: list[Path], spec: DatasetSpec, champion: ChampionManifest, as_of: dt.datetime | None
) -> HealthManifest:
    """Verify the forecasts of the days before `as_of`, and write table and plot.

    Table and plot are of all versions; the limits are those of the champion's own forecasts. A retrain is asked for
    where they are broken, unless it was for the same version in the cooldown before; what a version has forecast of the
    days that it learned from does not count.

    Raises DataError where there is no actual value for any stored forecast yet.
    """
    rule, spec = spec.monitoring, spec.of_student()
    readings = read_readings(files, spec, as_of=as_of, ahead_hours=spec.ahead_hours(champion.horizon_hours))
    end = issue_time(readings, spec, as_of)
    shown = end - dt.timedelta(days=SHOWN_WINDOWS * rule.window_days)
    reach = min(shown - dt.timedelta(days=2 * SPREAD_DAYS), _reference_start(champion, rule.reference_days))
    hours = _hours(readings.filter(pl.col("time_utc").is_between(reach, end, closed="left")), spec)
    verified = verified_hours(
        _stored(champion.name, shown, end, spec), hours, spec, horizon_hours=champion.horizon_hours
    )
    if verified.is_empty():
        raise DataError(f"{champion.name}: there is no actual value yet for any stored forecast from {shown} to {end}")
    health = partial(rolling_health, window_days=rule.window_days, step_hours=spec.grid.hours)
    daily = health(verified)
    drift = input_drift(hours, spec, as_of=end, trained_until=champion.trained_until_utc)
    # A forecast for days that it has learned from says nothing of it.
    is_own = (pl.col("model_version") == champion.version) & (pl.col("issue_time_utc") >= champion.trained_until_utc)
    present = verified.filter(is_own)
    figures = NOTHING if present.is_empty() else health(present).row(-1, named=True)
    hours_verified, skill, coverage = (figures[name] for name in NOTHING)
    broken = broken_limits(rule, hours=hours_verified, skill=skill, coverage=coverage, drift=drift)
    folder = health_folder(champion.name, end)
    asked = asked_before(champion.name, champion.version, end, rule.cooldown_days) if broken else None
    with folder_written_whole(folder) as part:
        daily.write_parquet(part / "daily.parquet")
        figure = plot_health(
            daily["day"].to_list(),
            daily["skill"].to_list(),
            daily["coverage_80"].to_list(),
            least_skill=rule.least_skill,
            coverage_range=rule.coverage_80,
            title=f"{champion.name}: the last {rule.window_days} days, day by day",
        )
        figure.savefig(part / "health.png")
        state = {"model_version": champion.version, ASKED: asked.isoformat() if asked else None}
        write_json(part / HEALTH, {**figures, "drift": drift, "broken": broken, **state})
    return HealthManifest(
        folder=folder,
        task=champion.name,
        as_of_utc=end,
        model_version=champion.version,
        hours=hours_verified,
        skill=skill,
        coverage_80=coverage,
        drift=drift,
        broken=broken,
        asked_utc=asked,
    )


def _reference_start(champion: ChampionManifest, days: int) -> dt.datetime:
    return champion.trained_until_utc - dt.timedelta(days=days)


def _hours(readings: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """Every step of each series; null where it has no usable value."""
    return student_table(clean(readings, spec), spec)


def _stored(task_name: str, start: dt.datetime, end: dt.datetime, spec: DatasetSpec) -> pl.DataFrame:
    """All stored forecasts of the steps from start up to, not including, end."""
    files = sorted((home() / "forecasts" / task_name).glob("issue=*/forecast.parquet"))
    if not files:
        raise DataError(f"{task_name}: no forecast is stored yet")
    # Older forecasts have fewer columns.
    stored = pl.scan_parquet(files, hive_partitioning=False, missing_columns="insert", extra_columns="ignore")
    verified = stored.select(*KEY, "issue_time_utc", "model_version", "mean", *QUANTILE_NAMES)
    return verified.filter(pl.col("time_utc").is_between(start, end - spec.student_step)).collect()
