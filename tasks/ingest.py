"""Stage 1: the source becomes one content-addressed table of readings."""

import datetime as dt
from pathlib import Path

from prefect import task
from prefect.tasks import exponential_backoff

from schemas.manifests import ReadingsManifest
from tasks.caching import content_key, is_transient
from tasks.home import home
from tutelage.dataset import DatasetSpec
from tutelage.files import write_table
from tutelage.readings import read_readings


@task(
    name="ingest",
    task_run_name="ingest {spec.name}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def ingest(files: list[Path], spec: DatasetSpec, as_of: dt.datetime | None) -> ReadingsManifest:
    """Read the source's files, up to `as_of`, and write them as parquet under the digest of its bytes."""
    readings = read_readings(files, spec, as_of=as_of)
    path, digest = write_table(readings, home() / "data" / "readings")
    times = readings["time_utc"].drop_nulls()
    return ReadingsManifest(
        path=path,
        digest=digest,
        rows=readings.height,
        series=readings["series_id"].n_unique(),
        first_utc=times.min(),
        last_utc=times.max(),
        source_files=[file.name for file in files],
    )
