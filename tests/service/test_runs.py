"""What the worker runs on the real servers: a retrain, then a forecast by the champion that came of it."""

from typing import Any

import mlflow
import polars as pl
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from tests.service.conftest import Up

pytestmark = pytest.mark.service

SMALL: dict[str, Any] = {
    "dataset": "household",
    "horizon_hours": 24,
    "lookback_hours": 24,
    "history_days": 24,
    "test_days": 14,
    "device": "cpu",
    "recipe": {
        "teachers": 2,
        "bins": 12,
        "draws": 2,
        "teacher_budget": {"epochs": 4, "patience": 4},
        "student_budget": {"epochs": 4, "patience": 4},
    },
}


def ran(deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """Start a deployment as the page does, wait for its end, and require that it went well."""
    run = run_deployment(deployment, parameters={"parameters": parameters}, timeout=300, poll_interval=2)
    assert run.state.name == "Completed", run.state.message
    return run


@pytest.fixture(scope="session")
def retrained(service: Up) -> str:
    """The id of a retrain that the worker ran; its version is the champion."""
    return str(ran("retrain/household", SMALL).id)


def test_retrain__the_worker_registers_a_champion(retrained: str, service: Up) -> None:
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("household-24h", "champion")
    assert version.tags["prefect.flow_run_id"] == retrained
    assert client.get_run(version.run_id).info.artifact_uri.startswith("mlflow-artifacts:")
    assert (service.home / "reports" / "latest" / "household-24h" / "report.html").is_file()


def test_forecast__the_worker_issues_one(retrained: str, service: Up) -> None:
    ran("forecast/household", {"dataset": "household", "as_of": "2010-07-28T12:00:00Z"})
    [path] = (service.home / "forecasts" / "household-24h").glob("issue=2010-07-28T1200Z/*.parquet")
    assert pl.read_parquet(path).height == 24
