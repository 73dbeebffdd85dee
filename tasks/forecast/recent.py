"""What the champion needs as input."""

import datetime as dt
from pathlib import Path

from runtime.paths import home
from runtime.stage import stage
from schemas.forecast import ChampionManifest, RecentManifest
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.grid import HOUR
from tutelage.data.inputs import issue_time, recent_steps
from tutelage.data.readings import read_readings
from tutelage.files import write_table


@stage("recent hours", run_name="recent hours {spec.name}")
def read_recent(
    files: list[Path], spec: DatasetSpec, champion: ChampionManifest, as_of: dt.datetime | None
) -> RecentManifest:
    """Read up to `as_of`, clean, resample, and fill missing hours by the spec's rule.

    known_future columns are also read for the horizon; privileged columns are not, and need not be in the files.
    """
    spec = spec.of_student()
    planned = spec.names(Role.KNOWN_FUTURE) and as_of is not None
    until = as_of + champion.horizon_hours * HOUR if planned and as_of is not None else as_of
    readings = read_readings(files, spec, as_of=until, ahead_hours=spec.ahead_hours(champion.horizon_hours))
    issued = issue_time(readings, spec, as_of)
    hours = recent_steps(
        readings,
        spec,
        issued,
        lookback_hours=champion.lookback_hours,
        complete_hours=champion.complete_hours,
        horizon_hours=champion.horizon_hours,
    )
    path, digest = write_table(hours, home() / "data" / "recent")
    return RecentManifest(path=path, digest=digest, issue_time_utc=issued)
