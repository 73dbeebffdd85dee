"""What the worker runs on the real servers: retrain, forecast, monitor, and the retrain that the monitor asks for."""

from pathlib import Path

import mlflow
import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from tests.service.conftest import Up, ran, until

pytestmark = pytest.mark.service


def test_retrain__the_worker_registers_a_version_and_a_person_makes_it_champion(retrained: str, service: Up) -> None:
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("household-24h", "champion")
    assert version.tags["prefect.flow_run_id"] == retrained
    assert version.tags["rollback.why"]
    assert client.get_run(version.run_id).info.artifact_uri.startswith("mlflow-artifacts:")
    assert (service.home / "reports" / "latest" / "household-24h" / "report.html").is_file()


def test_forecast__the_worker_issues_one(retrained: str, service: Up) -> None:
    ran("forecast/household", {"dataset": "household", "as_of": "2010-07-28T12:00:00Z"})
    [path] = (service.home / "forecasts" / "household-24h").glob("issue=2010-07-28T1200Z/*.parquet")
    assert pl.read_parquet(path).height == 24


@pytest.mark.fault
def test_forecast__of_two_at_once_neither_is_lost(retrained: str, service: Up) -> None:
    """The schedule's run at five past the hour, and a person's."""
    hours = ("0600", "0700")
    runs = [
        run_deployment(
            "forecast/household",
            parameters={"parameters": {"dataset": "household", "as_of": f"2010-07-27T{hour[:2]}:00:00Z"}},
            timeout=0,
        )
        for hour in hours
    ]
    with get_client(sync_client=True) as client:
        ended = [until(lambda run=run: (now := client.read_flow_run(run.id)).state.is_final() and now) for run in runs]
    assert [run.state.name for run in ended] == ["Completed", "Completed"]
    for hour in hours:
        [path] = (service.home / "forecasts" / "household-24h").glob(f"issue=2010-07-27T{hour}Z/*.parquet")
        assert pl.read_parquet(path).height == 24


def with_a_heater(path: Path, since: str) -> None:
    """The household uses 8 kW more from a day on, within what its column may hold."""
    table = pl.read_csv(path, infer_schema=False)
    power = pl.col("Global_active_power")
    more = (power.cast(pl.Float64) + 8).clip(upper_bound=14.5).cast(pl.String)
    hot = pl.when(pl.col("date_time") >= since).then(more).otherwise(power)
    table.with_columns(Global_active_power=hot).write_csv(path)


def started_by_event() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["retrain"])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=["household"])),
        )
    return [run for run in runs if run.created_by is not None and run.created_by.type == "AUTOMATION"]


@pytest.mark.slow
def test_monitor__degraded_forecasts_start_a_retrain_with_the_reason(retrained: str, service: Up) -> None:
    for day in (25, 26, 27, 28):
        ran("forecast/household", {"dataset": "household", "as_of": f"2010-07-{day}T00:00:00Z"})
    with_a_heater(service.home / "datasets" / "household.csv", "2010-07-25")
    ran("monitor/household", {"dataset": "household", "as_of": "2010-07-29T00:00:00Z"})
    [run] = until(lambda: [run for run in started_by_event() if run.state.is_final()], 600)
    assert run.state.name == "Completed", run.state.message
    assert "the 80 % interval covers" in run.parameters["parameters"]["reason"]
    assert run.parameters["parameters"]["as_of"] == "2010-07-29T00:00:00+00:00"
    version = mlflow.MlflowClient().get_model_version_by_alias("household-24h", "challenger")
    assert version.tags["prefect.flow_run_id"] == str(run.id)
    assert int(version.version) >= 2
