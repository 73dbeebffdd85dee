"""The MLflow registry: which version is the champion, and what a version's folder contains.

The folder of a version that a retrain registered is an MLflow model. It contains the exported student and, after a
refit, also the student that was evaluated before it. Versions never change.
"""

import datetime as dt
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from runtime.moved import follow_home
from runtime.paths import home
from runtime.retention import mark_used
from tutelage.errors import RegistryError
from tutelage.files import folder_written_whole, value_digest

CHAMPION = "champion"
CHALLENGER = "challenger"
EXPORT = "artifacts/export"
"""The exported student that the version runs."""
EVALUATED = "evaluated"
"""The exported student that was evaluated, before the refit."""
EVALUATED_BEFORE = "judged"
"""The same folder in versions that were registered before 0.2."""
TEST_END = "test_end_utc"
"""The tag with the end of the test part that a version was compared on."""
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a missing name, version or alias."""


def client() -> MlflowClient:
    """A client of the tracking server at MLFLOW_TRACKING_URI."""
    follow_home(home())
    return MlflowClient(mlflow.get_tracking_uri())


def version_of_alias(name: str, alias: str) -> ModelVersion | None:
    """The version of a registered model that has an alias; None where there is none."""
    try:
        return client().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return None


def champion_version(name: str) -> str | None:
    """The champion version of a registered model; None where there is none."""
    version = version_of_alias(name, CHAMPION)
    return None if version is None else str(version.version)


def last_test_end(name: str, *, before_run: str) -> dt.datetime | None:
    """The latest end of a test part that versions of a model were compared on, those of one run left out.

    None: no version says.
    """
    versions = client().search_model_versions(f"name = '{name}'")
    ends = [version.tags[TEST_END] for version in versions if version.run_id != before_run and TEST_END in version.tags]
    return max(map(dt.datetime.fromisoformat, ends), default=None)


def registered_runs() -> set[str]:
    """The ids of the MLflow runs that registered versions come from."""
    versions = client().search_model_versions()
    runs = {version.run_id for version in versions if version.run_id}
    while versions.token:
        versions = client().search_model_versions(page_token=versions.token)
        runs |= {version.run_id for version in versions if version.run_id}
    return runs


def find_version(name: str, version: int | str) -> ModelVersion:
    """A version of a registered model. Raises RegistryError where it does not exist."""
    try:
        return client().get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        raise RegistryError(f"{name} has no version {version}") from None


def download_version(name: str, version: int | str) -> Path:
    """The local folder of a version, downloaded on first use to `home()`.

    Raises RegistryError where the version does not exist, or its files can't be downloaded.
    """
    source = str(find_version(name, version).source)
    folder = home() / "versions" / name / value_digest(source)[:32]
    if folder.is_dir():
        mark_used(folder)
    else:
        try:
            with folder_written_whole(folder) as part:
                mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=str(part))
                if not any(part.iterdir()):  # MLflow raises no error where a version's files are gone
                    raise RegistryError(f"{name}/{version} can't be downloaded from the registry: its files are gone")
        except MlflowException as error:
            raise RegistryError(f"{name}/{version} can't be downloaded from the registry: {error}") from error
    return folder


def exported_in(version_folder: Path) -> Path:
    """The folder of the exported student that a version runs."""
    return version_folder / EXPORT


def evaluated_in(version_folder: Path) -> Path:
    """The folder of the exported student that was evaluated, before any refit."""
    folders = [version_folder / name for name in (EVALUATED, EVALUATED_BEFORE)]
    return next((folder for folder in folders if folder.is_dir()), exported_in(version_folder))
