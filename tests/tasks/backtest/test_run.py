from pathlib import Path

import pytest

from runtime.registry import client
from runtime.runs import STAGE_TAG
from schemas.backtest import BacktestParameters
from tasks.backtest.run import open_backtest, tracked_backtest
from tests.tasks.builders import mlflow_run
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
