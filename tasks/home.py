"""Where everything lives: one folder, and the settings that keep Prefect and MLflow inside it unless told otherwise."""

import os
from pathlib import Path


def home() -> Path:
    """The folder of all data, runs and reports: TUTELAGE_HOME, by default ./var."""
    return Path(os.environ.get("TUTELAGE_HOME", "var")).resolve()


def datasets_folder() -> Path:
    """The folder of the dataset specs: TUTELAGE_DATASETS, by default deployments/datasets of this checkout."""
    default = Path(__file__).parent.parent / "deployments" / "datasets"
    return Path(os.environ.get("TUTELAGE_DATASETS", default))


def prepare_environment() -> None:
    """Set Prefect's and MLflow's defaults: files under `home()`, no telemetry. What is set already stays.

    Must run before prefect or mlflow are imported, which read their settings at import.
    """
    root = home()
    root.mkdir(parents=True, exist_ok=True)
    defaults = {
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(root / "results"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # The server in this process has to make its database first, which takes long on a slow disk.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
