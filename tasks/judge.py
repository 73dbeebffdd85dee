"""Monitor, stage 2: stored forecasts meet what then happened."""

import datetime as dt
from pathlib import Path

import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from schemas.serving import ChampionManifest, HealthManifest
from tasks.caching import is_transient
from tasks.home import home
from tutelage.dataset import DatasetSpec
from tutelage.errors import DataError
from tutelage.files import folder_written_whole, write_json
from tutelage.inputs import HOUR, issue_time
from tutelage.monitoring import SPREAD_DAYS, broken_limits, input_drift, judged_hours, rolling_health
from tutelage.plots import plot_health
from tutelage.quality import clean
from tutelage.readings import read_readings
from tutelage.resample import hourly_table

SHOWN_WINDOWS = 8


@task(
    name="judge forecasts",
    task_run_name="judge {champion.name}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def judge_forecasts(
    files: list[Path], spec: DatasetSpec, champion: ChampionManifest, as_of: dt.datetime | None
) -> HealthManifest:
    """Judge what was issued for the days before `as_of`, and write the table and the plot.

    Raises DataError where no stored forecast has come true yet.
    """
    rule = spec.monitoring
    readings = read_readings(files, spec, as_of=as_of)
    now = issue_time(readings, spec, as_of)
    shown = now - dt.timedelta(days=SHOWN_WINDOWS * rule.window_days)
    reach = min(shown - dt.timedelta(days=2 * SPREAD_DAYS), _reference_start(champion, rule.reference_days))
    hours = _hours(readings.filter(pl.col("time_utc").is_between(reach, now, closed="left")), spec)
    judged = judged_hours(_stored(champion.name, shown, now), hours, spec, horizon_hours=champion.horizon_hours)
    if judged.is_empty():
        raise DataError(f"{champion.name}: no stored forecast of the hours from {shown} to {now} has come true yet")
    daily = rolling_health(judged, rule.window_days)
    drift = input_drift(hours, spec, now=now, trained_until=champion.trained_until_utc)
    last = daily.row(-1, named=True)
    broken = broken_limits(rule, hours=last["hours"], skill=last["skill"], coverage=last["coverage_80"], drift=drift)
    folder = home() / "monitoring" / champion.name / f"as-of={now:%Y-%m-%dT%H%MZ}"
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
        write_json(part / "health.json", {**last, "drift": drift, "broken": broken})
    return HealthManifest(
        folder=folder,
        task=champion.name,
        as_of_utc=now,
        model_version=champion.version,
        hours=last["hours"],
        skill=last["skill"],
        coverage_80=last["coverage_80"],
        drift=drift,
        broken=broken,
    )


def _reference_start(champion: ChampionManifest, days: int) -> dt.datetime:
    return champion.trained_until_utc - dt.timedelta(days=days)


def _hours(readings: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """Every hour of each series; null where it has no value that can be used."""
    return hourly_table(clean(readings, spec), spec)


def _stored(task_name: str, start: dt.datetime, end: dt.datetime) -> pl.DataFrame:
    """All stored forecasts of the hours from start up to end."""
    files = sorted((home() / "forecasts" / task_name).glob("issue=*/forecast.parquet"))
    if not files:
        raise DataError(f"{task_name}: no forecast is stored yet")
    stored = pl.scan_parquet(files, hive_partitioning=False)
    return stored.filter(pl.col("time_utc").is_between(start, end - HOUR)).collect()
