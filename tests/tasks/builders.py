"""The parameters of the retrain that the tests of its stages share, and what they read from MLflow."""

from mlflow.entities import Run

from runtime.registry import client
from schemas.retrain import RetrainParameters
from tests.tutelage.builders import small_recipe

PARAMETERS = RetrainParameters(
    dataset="stage-meter",
    horizon_hours=2,
    lookback_hours=6,
    history_days=16,
    test_days=7,
    recipe=small_recipe(bins=8),
    replicates=2,
    device="cpu",
)


def mlflow_run(run_id: str) -> Run:
    return client().get_run(run_id)


def steps_of(run_id: str, metric: str) -> list[int]:
    """The steps of a metric in MLflow."""
    return [each.step for each in client().get_metric_history(run_id, metric)]


def artifacts_of(run_id: str) -> set[str]:
    """The files at the top of a run's artifacts."""
    return {file.path for file in client().list_artifacts(run_id)}
