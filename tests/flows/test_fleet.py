"""Several forecasters at once, each by itself: one has a fault, one run was cut off."""

from collections.abc import Iterator

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from pydantic import ValidationError

import flows.pieces
import flows.retrain
from flows.fleet import fleet
from runtime.paths import datasets_folder
from schemas.fleet import FleetManifest, FleetParameters
from schemas.retrain import RetrainParameters
from schemas.verdict import Verdict
from tests.flows.power import cut_at
from tests.flows.test_retrain import small
from tests.household import write_slice
from tutelage.errors import FleetError

pytestmark = pytest.mark.usefixtures("prefect_server")

GROUPS = ("group-a", "group-b", "group-c")


def asked(*datasets: str, engine: str = "local") -> FleetParameters:
    each = small("any", unprivileged=False, replicates=2, history_days=12)
    return FleetParameters(datasets=datasets, each=each, engine=engine)


def runs(task: str) -> list[Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(task)
    return list(client.search_runs([experiment.experiment_id], "tags.`tutelage.stage` = 'retrain'"))


@pytest.fixture(scope="module")
def groups(prefect_server: None) -> Iterator[None]:
    for name in GROUPS:
        write_slice(datasets_folder(), name=name, days=30)
    path = datasets_folder() / "group-b.csv"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("Global_active_power", "power", 1), encoding="utf-8")
    yield
    path.write_text(whole, encoding="utf-8")


@pytest.fixture(scope="module")
def cut_off(groups: None) -> None:
    """A fleet whose last member was cut off, after one with a fault."""
    with cut_at(flows.retrain, "fetch_champion", call=3):
        fleet(asked(*GROUPS))


def test_fleet__a_fault_of_one_stops_no_other(cut_off: None) -> None:
    before = {run.info.run_id: run.info.end_time for run in runs("group-a-1h")}
    [interrupted] = runs("group-c-1h")
    with pytest.raises(
        FleetError, match=r"^1 of 3 have no new version; group-b-1h: group-b\.csv: .*Global_active_power"
    ):
        fleet(asked(*GROUPS))
    assert {run.info.run_id: run.info.end_time for run in runs("group-a-1h")} == before, "it was finished"
    [done] = runs("group-c-1h")
    assert (done.info.run_id, done.info.status) == (interrupted.info.run_id, "FINISHED")
    for group in ("group-a", "group-c"):
        [version] = mlflow.MlflowClient().search_model_versions(f"name = '{group}-1h'")
        assert int(version.version) == 1
    with get_client(sync_client=True) as prefect:
        [artifact] = prefect.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["fleet"])))[-1:]
    assert artifact.description == "2 of 3 have a new version"


def test_fleet__a_server_that_fails_for_one_stops_no_other(cut_off: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = flows.pieces.retrain_once

    def fails_for_the_first(parameters: RetrainParameters, *given: object) -> Verdict:
        if parameters.dataset == "group-d":
            raise MlflowException("the server has no room")
        return real(parameters, *given)

    monkeypatch.setattr(flows.pieces, "retrain_once", fails_for_the_first)
    for name in ("group-d", "group-e"):
        write_slice(datasets_folder(), name=name, days=30)
    with pytest.raises(FleetError, match=r"^1 of 2 .*; group-d-1h: MlflowException: the server has no room$"):
        fleet(asked("group-d", "group-e"))
    [version] = mlflow.MlflowClient().search_model_versions("name = 'group-e-1h'")
    assert int(version.version) == 1


@pytest.mark.slow
def test_fleet__on_a_cluster_registers_as_one_process_does(cut_off: None) -> None:
    for name in ("ray-a", "ray-b"):
        write_slice(datasets_folder(), name=name, days=30)
    there = fleet(asked("ray-a", "ray-b", engine="ray"))
    assert [(row.task, row.version) for row in there.rows] == [("ray-a-1h", "1"), ("ray-b-1h", "1")]
    [here] = runs("group-a-1h")
    for task in ("ray-a-1h", "ray-b-1h"):
        [run] = runs(task)
        assert run.data.metrics["student.crps"] == here.data.metrics["student.crps"], "of the same readings"


def test_parameters__name_each_dataset_once() -> None:
    with pytest.raises(ValidationError, match="group-a is named twice"):
        asked("group-a", "group-b", "group-a")
    with pytest.raises(ValidationError, match="at least 1 item"):
        asked()


def test_manifest__failed_are_those_without_a_version() -> None:
    rows = [{"task": "a-1h", "version": "1", "sentence": "good"}, {"task": "b-1h", "sentence": "no file"}]
    assert [row.task for row in FleetManifest.model_validate({"rows": rows}).failed] == ["b-1h"]
