import shutil
from pathlib import Path

import pytest

import runtime.runs
from runtime.artifacts import EVALUATION, read_evaluation, write_evaluation
from runtime.registry import client
from runtime.runs import KEY_TAG, PARENT_TAG, experiment
from schemas.manifests import RunManifest
from tasks.retrain.run import finished_retrain, logged_file, open_run, retrain_key, tracked_retrain
from tests.runtime.builders import FLOW_RUN, evaluation_of
from tests.tasks.builders import PARAMETERS, mlflow_run
from tutelage.data.dataset import DatasetSpec


def test_open_run__has_a_child_for_each_contender_that_is_trained(spec: DatasetSpec) -> None:
    parameters = PARAMETERS.model_copy(update={"dataset": "open-meter", "seed": 3})
    run = open_run.fn("open-key", parameters, spec, None)
    assert set(run.children) == {"teacher", "student", "twin", "unprivileged"}
    parent, child = mlflow_run(run.run_id), mlflow_run(run.children["twin"])
    assert client().get_experiment(run.experiment_id).name == "open-meter-2h"
    assert (parent.info.run_name, child.info.run_name) == ("open-meter-2h seed 3", "open-meter-2h twin")
    assert child.data.tags[PARENT_TAG] == run.run_id
    assert parent.data.tags["prefect.flow_run_id"] == FLOW_RUN
    assert parent.data.params["recipe.teacher.views.future_sigma"] == "2.0"
    assert parent.data.params["seed"] == "3"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.retrain.run.describe_run", lambda *given: None)
        assert open_run.fn("open-key", parameters, spec, None) == run, "an unfinished run is continued"


@pytest.fixture
def undescribed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventy parameters take MLflow a second."""
    monkeypatch.setattr("tasks.retrain.run.describe_run", lambda *given: None)


@pytest.mark.usefixtures("undescribed")
def test_open_run__without_unprivileged_students_has_no_child_for_them(spec: DatasetSpec) -> None:
    parameters = PARAMETERS.model_copy(update={"dataset": "open-meter", "unprivileged": False})
    assert set(open_run.fn("alone", parameters, spec, None).children) == {"teacher", "student", "twin"}


@pytest.mark.usefixtures("undescribed")
def test_open_run__within_a_backtest_lies_in_its_experiment(spec: DatasetSpec) -> None:
    outer_id = experiment("open-meter-2h-backtest")
    outer = RunManifest(
        key="outer", experiment_id=outer_id, run_id=client().create_run(outer_id).info.run_id, children={}
    )
    run = open_run.fn("inner", PARAMETERS, spec, outer, "until 2024-07-20")
    parent = mlflow_run(run.run_id)
    assert run.experiment_id == outer_id
    assert parent.data.tags[PARENT_TAG] == outer.run_id
    assert parent.info.run_name == "stage-meter-2h seed 0 until 2024-07-20"


@pytest.mark.usefixtures("undescribed")
def test_finished_retrain__is_one_within_that_has_ended(spec: DatasetSpec, meter_file: Path, tmp_path: Path) -> None:
    outer_id = experiment("open-meter-2h-ablation")
    outer = RunManifest(key="outer", experiment_id=outer_id, run_id="", children={})
    assert finished_retrain(PARAMETERS, spec, [meter_file], outer) is None
    run_id = client().create_run(outer_id).info.run_id
    within = outer.model_copy(update={"run_id": run_id})
    run = open_run.fn(retrain_key(PARAMETERS, spec, [meter_file]), PARAMETERS, spec, within)
    evaluation = evaluation_of(gate_by_hour=[0.5])
    client().log_artifact(run.run_id, str(write_evaluation(tmp_path, evaluation, {}, [])))
    assert finished_retrain(PARAMETERS, spec, [meter_file], outer) is None, "it has an evaluation and is not finished"
    client().set_terminated(run.run_id, "FINISHED")
    assert finished_retrain(PARAMETERS, spec, [meter_file], outer) == run.run_id
    assert read_evaluation(logged_file(run.run_id, EVALUATION)) == evaluation
    assert finished_retrain(PARAMETERS.model_copy(update={"seed": 1}), spec, [meter_file], outer) is None


def test_retrain_key__is_that_of_parameters_and_data(spec: DatasetSpec, meter_file: Path, tmp_path: Path) -> None:
    key = retrain_key(PARAMETERS, spec, [meter_file])
    copied = Path(shutil.copy(meter_file, tmp_path / meter_file.name))
    assert retrain_key(PARAMETERS, spec, [copied]) == key
    copied.write_text("other readings")
    others = [
        retrain_key(PARAMETERS.model_copy(update={"seed": 1}), spec, [meter_file]),
        retrain_key(PARAMETERS, spec, [copied]),
    ]
    assert len({key, *others}) == 3


@pytest.mark.usefixtures("undescribed")
def test_tracked_retrain__ends_as_its_block_does(
    spec: DatasetSpec, meter_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.retrain.run.open_run", open_run.fn)
    parameters = PARAMETERS.model_copy(update={"dataset": "tracked-meter"})

    def fail() -> None:
        with tracked_retrain(parameters, spec, [meter_file]) as run:
            opened.append(run)
            raise ValueError("a fault")

    opened: list[RunManifest] = []
    with pytest.raises(ValueError, match="a fault"):
        fail()
    assert mlflow_run(opened[0].run_id).info.status == "FAILED"
    with tracked_retrain(parameters, spec, [meter_file]) as run:
        assert run == opened[0]
    assert {mlflow_run(run_id).info.status for run_id in (run.run_id, *run.children.values())} == {"FINISHED"}
    tags = mlflow_run(run.run_id).data.tags
    assert tags[KEY_TAG] == retrain_key(parameters, spec, [meter_file])
    assert tags[runtime.runs.STAGE_TAG] == "retrain"
