"""Paths: one folder for everything, and the defaults that keep the files of Prefect and MLflow inside it."""

import os
from pathlib import Path

STARTED_BY = "TUTELAGE_STARTED_BY"
"""In the environment of what a process starts: its id."""
ISSUE_FORMAT = "%Y-%m-%dT%H%MZ"
"""Of a time in a folder's name, UTC: the names sort as their times do."""


def home() -> Path:
    """The folder for all data, runs and reports: TUTELAGE_HOME, by default ./var."""
    return Path(os.environ.get("TUTELAGE_HOME", "var")).resolve()


def datasets_folder() -> Path:
    """The folder of the dataset specs: TUTELAGE_DATASETS, by default deployments/datasets of this checkout."""
    default = Path(__file__).parent.parent / "deployments" / "datasets"
    return Path(os.environ.get("TUTELAGE_DATASETS", default))


def copies_folder(dataset: str) -> Path:
    """The folder for copies of a dataset's source, where it is no file of this machine."""
    return home() / "data" / "fetched" / dataset


def run_folder(run_id: str, stage: str) -> Path:
    """The folder for the results of a stage in an MLflow run."""
    return home() / "runs" / run_id / stage


def prepare_environment() -> None:
    """Set defaults of Prefect and MLflow: files under `home()`, no telemetry. Existing settings are kept.

    It must run before prefect or mlflow is imported: both read their settings at import.
    """
    root = home()
    root.mkdir(parents=True, exist_ok=True)
    os.environ[STARTED_BY] = str(os.getpid())
    defaults = {
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(root / "results"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # The server in this process first creates its database, which takes long on a slow disk.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
