"""The source's readings as one content-addressed table."""

import datetime as dt
from pathlib import Path

from runtime.paths import home
from runtime.stage import cached_stage
from schemas.retrain import ReadingsManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.data.issued import last_measured
from tutelage.data.readings import read_readings
from tutelage.data.source import relative_names
from tutelage.files import write_table


@cached_stage("ingest", run_name="ingest {spec.name}")
def ingest(
    files: list[Path], spec: DatasetSpec, as_of: dt.datetime | None, ahead_hours: int | None = None
) -> ReadingsManifest:
    """Read the source's files up to `as_of`, and write the readings as parquet, named by its digest.

    ahead_hours: how long before its hour a forecast must have been issued to be seen (`spec.ahead_hours`)
    """
    readings = read_readings(files, spec, as_of=as_of, ahead_hours=ahead_hours)
    path, digest = write_table(readings, home() / "data" / "readings")
    times = readings["time_utc"].drop_nulls()
    return ReadingsManifest(
        path=path,
        digest=digest,
        rows=readings.height,
        series=readings["series_id"].n_unique(),
        first_utc=times.min(),
        last_utc=last_measured(readings, spec) or times.max(),
        source_files=list(relative_names(files)),
    )
