"""The champion that the candidate will meet, before anything is trained."""

from runtime.champion import champion_to_meet
from runtime.registry import download_version
from runtime.stage import stage
from schemas.manifests import RunManifest


@stage("champion", run_name="champion {task_name}")
def fetch_champion(task_name: str, run: RunManifest) -> str | None:
    """Download the champion, where there is one; return its version.

    Raises RegistryError where its files are gone: it would also end the evaluation, after hours of training.
    """
    version = champion_to_meet(task_name, run_id=run.run_id)
    if version is not None:
        download_version(task_name, version)
    return version
