"""Forecast, stage 1: which version is the champion, and its files."""

import mlflow
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from schemas.serving import ChampionManifest
from tasks.caching import is_transient
from tasks.home import home
from tasks.tracking import champion_version, client
from tutelage.errors import RegistryError
from tutelage.files import folder_written_whole, read_json

CARD = "artifacts/export/student.json"


@task(
    name="champion",
    task_run_name="champion {name}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def find_champion(name: str) -> ChampionManifest:
    """Download the present champion; a version that is here already is not fetched again: versions never change.

    Raises RegistryError where there is none.
    """
    version = champion_version(name)
    if version is None:
        raise RegistryError(f"{name} has no champion yet: retrain it first")
    source = client().get_model_version(name, version).source
    folder = home() / "champions" / str(source).rsplit("/", maxsplit=1)[-1]
    if not folder.is_dir():
        with folder_written_whole(folder) as part:
            mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=str(part))
    card = read_json(folder / CARD)
    return ChampionManifest(
        folder=folder,
        name=name,
        version=version,
        lookback_hours=card["lookback_hours"],
        horizon_hours=card["horizon_hours"],
        trained_until_utc=card["trained_until_utc"],
    )
