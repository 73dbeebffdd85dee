"""Forecast, stage 2: the hours that the champion needs, up to the issue time."""

import datetime as dt
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from schemas.serving import ChampionManifest, HoursManifest
from tasks.caching import is_transient
from tasks.home import home
from tutelage.dataset import DatasetSpec, Role
from tutelage.files import write_table
from tutelage.inputs import HOUR, issue_time, recent_hours
from tutelage.readings import read_readings


@task(
    name="recent hours",
    task_run_name="recent hours {spec.name}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def read_recent(
    files: list[Path], spec: DatasetSpec, champion: ChampionManifest, as_of: dt.datetime | None
) -> HoursManifest:
    """Read up to `as_of`, clean, resample, and fill what is missing by the spec's rule.

    Columns that are known ahead of time are read for the horizon too: that is what they are for.
    """
    planned = spec.names(Role.KNOWN_FUTURE) and as_of is not None
    until = as_of + champion.horizon_hours * HOUR if planned and as_of is not None else as_of
    readings = read_readings(files, spec, as_of=until)
    issued = issue_time(readings, spec, as_of)
    hours = recent_hours(
        readings, spec, issued, lookback_hours=champion.lookback_hours, horizon_hours=champion.horizon_hours
    )
    path, digest = write_table(hours, home() / "data" / "recent")
    return HoursManifest(path=path, digest=digest, issue_time_utc=issued)
