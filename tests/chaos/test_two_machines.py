"""Two homes, as of two machines, with one MLflow and one Prefect, which both reach over HTTP alone."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from runtime.beat import SILENT_SECONDS
from tests.chaos.retrains import FORECAST, NAME, Retrain, new_home, quick_parameters
from tests.chaos.servers import Server
from tests.tutelage.builders import small_recipe
from tutelage.model.kinds import Budget

pytestmark = [pytest.mark.chaos, pytest.mark.fault]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[tuple[Path, Path], dict[str, str]]]:
    """Two homes, and what both know of the servers; the data are at the same place for both."""
    servers, first = tmp_path_factory.mktemp("servers"), new_home(tmp_path_factory.mktemp("first"))
    with Server(servers, "mlflow") as tracking, Server(servers, "prefect") as orchestration:
        yield (
            (first, tmp_path_factory.mktemp("second")),
            {
                "MLFLOW_TRACKING_URI": tracking.url,
                "PREFECT_API_URL": f"{orchestration.url}/api",
                "TUTELAGE_DATASETS": str(first / "datasets"),
            },
        )


def test_two_machines__a_living_run_is_left_alone_and_that_of_a_killed_process_is_taken_over(
    machines: tuple[tuple[Path, Path], dict[str, str]],
) -> None:
    (here, there), both_know = machines
    patient = Budget(epochs=400, patience=200, batch_size=32, learning_rate=1e-4, dropout=0.0)
    recipe = small_recipe(bins=12, base="none", teacher_training=patient, ensemble_size=10, teacher_width=64)
    parameters = quick_parameters(0, recipe=recipe)
    first = Retrain(here, parameters, **both_know)
    first.begins("teacher")
    refused = Retrain(there, parameters, **both_know)
    assert refused.process.wait(120) != 0
    assert "the same work, with the same parameters, is already running on " in refused.said
    assert first.process.poll() is None, "it has ended before its process could be killed"
    first.send()
    second = Retrain(there, parameters, **both_know).succeed(500)
    assert second.seconds["run"] > SILENT_SECONDS, "it has watched"

    client = mlflow.MlflowClient(both_know["MLFLOW_TRACKING_URI"])
    runs = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
    assert sorted(run.data.tags["tutelage.stage"] for run in runs) == ["retrain", "student", "teacher", "twin"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [int(version.version) for version in client.search_model_versions(f"name = '{NAME}'")] == [1]

    client.set_registered_model_alias(NAME, "champion", "1")
    Retrain(here, parameters, FORECAST, **both_know).succeed()  # with files that came through the server
