from pathlib import Path

import pytest

from runtime.artifacts import write_evaluation
from runtime.registry import client
from runtime.runs import STAGE_TAG
from schemas.backtest import BacktestParameters
from tasks.backtest.run import finished_evaluation, open_backtest, tracked_backtest
from tasks.retrain.run import open_run, retrain_key
from tests.runtime.builders import evaluation_of
from tests.tasks.builders import mlflow_run
from tests.tutelage.data.builders import START
from tutelage.data.dataset import DatasetSpec

PARAMETERS = BacktestParameters(dataset="backtested", horizon_hours=2, period_days=8, device="cpu")


def test_open_backtest__is_a_run_in_an_experiment_of_backtests(spec: DatasetSpec) -> None:
    run = open_backtest.fn("backtest-key", PARAMETERS, spec)
    assert client().get_experiment(run.experiment_id).name == "backtested-2h-backtest"
    assert run.children == {}
    parent = mlflow_run(run.run_id)
    assert parent.data.tags[STAGE_TAG] == "backtest"
    assert parent.data.params["period_days"] == "8"
    assert open_backtest.fn("backtest-key", PARAMETERS, spec) == run


def test_tracked_backtest__ends_finished(spec: DatasetSpec, meter_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.backtest.run.describe_run", lambda *given, **named: None)
    monkeypatch.setattr("tasks.backtest.run.open_backtest", open_backtest.fn)
    with tracked_backtest(PARAMETERS, spec, [meter_file]) as run:
        assert mlflow_run(run.run_id).info.status == "RUNNING"
    assert mlflow_run(run.run_id).info.status == "FINISHED"


def test_finished_evaluation__is_read_from_mlflow(
    spec: DatasetSpec, meter_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("backtest", "retrain"):
        monkeypatch.setattr(f"tasks.{module}.run.describe_run", lambda *given, **named: None)
    outer = open_backtest.fn("outer-key", PARAMETERS, spec)
    origin, files = PARAMETERS.ending(START), [meter_file]
    assert finished_evaluation(origin, spec, files, outer) is None
    run = open_run.fn(retrain_key(origin, spec, files), origin, spec, outer)
    evaluation = evaluation_of(gate_by_hour=[0.5])
    client().log_artifact(run.run_id, str(write_evaluation(tmp_path, evaluation, {}, [])))
    assert finished_evaluation(origin, spec, files, outer) is None, "it has an evaluation and is not finished"
    client().set_terminated(run.run_id, "FINISHED")
    assert finished_evaluation(origin, spec, files, outer) == evaluation
    assert finished_evaluation(PARAMETERS.ending(START.replace(day=2)), spec, files, outer) is None
