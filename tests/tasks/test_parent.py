from pathlib import Path
from typing import get_args

import pytest

from runtime.registry import client
from runtime.runs import STAGE_TAG
from schemas.ablation import AblationParameters
from schemas.backtest import BacktestParameters
from schemas.training import TrainingParameters
from tasks.parent import Kind, open_parent, tracked_parent
from tests.tasks.builders import mlflow_run
from tutelage.data.dataset import DatasetSpec

PARAMETERS: dict[Kind, TrainingParameters] = {
    "backtest": BacktestParameters(dataset="parted", horizon_hours=2, period_days=8, device="cpu"),
    "ablation": AblationParameters(dataset="parted", horizon_hours=2, test_days=8, device="cpu"),
}
DAYS = {"backtest": "period_days", "ablation": "test_days"}
kinds = pytest.mark.parametrize("kind", get_args(Kind))


@kinds
def test_open_parent__is_a_run_in_an_experiment_of_its_kind(kind: Kind, spec: DatasetSpec) -> None:
    run = open_parent.fn(f"{kind}-key", kind, PARAMETERS[kind], spec)
    assert client().get_experiment(run.experiment_id).name == f"parted-2h-{kind}"
    assert run.children == {}
    parent = mlflow_run(run.run_id)
    assert parent.data.tags[STAGE_TAG] == kind
    assert parent.data.params[DAYS[kind]] == "8"
    assert open_parent.fn(f"{kind}-key", kind, PARAMETERS[kind], spec) == run


@kinds
def test_tracked_parent__ends_finished(
    kind: Kind, spec: DatasetSpec, meter_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.parent.describe_run", lambda *given, **named: None)
    monkeypatch.setattr("tasks.parent.open_parent", open_parent.fn)
    with tracked_parent(kind, PARAMETERS[kind], spec, [meter_file]) as run:
        assert mlflow_run(run.run_id).info.status == "RUNNING"
    assert mlflow_run(run.run_id).info.status == "FINISHED"
