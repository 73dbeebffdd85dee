"""Runs that are killed, never begin, are missed, or wait for each other, on the real servers."""

import datetime as dt
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelling, Pending, Scheduled

from deployments.arrange import FOUND, SILENCE, cancel_missed, ended_without, ensure_automation
from deployments.service import POOL
from schemas.retrain import RetrainParameters
from tests.service.conftest import ROOT, SMALL, Up, until

pytestmark = [pytest.mark.service, pytest.mark.slow]

LONG: dict[str, Any] = SMALL | {
    "seed": 11,
    "recipe": SMALL["recipe"]
    | {"teacher": SMALL["recipe"]["teacher"] | {"training": {"epochs": 2000, "patience": 200}}},
}
"""A training that nobody waits for."""
SECONDS, MINUTE = dt.timedelta(seconds=10), dt.timedelta(minutes=1)
ALONE = """
import sys
from flows.retrain import retrain
from schemas.retrain import RetrainParameters
retrain(RetrainParameters.model_validate_json(sys.argv[1]))
"""
ARRANGE = """
import sys
from datetime import timedelta
from prefect.client.orchestration import get_client
from deployments.arrange import ensure_automation, lost_runs, watch_found
with get_client(sync_client=True) as client:
    for automation in lost_runs(silence=timedelta(seconds=float(sys.argv[1]))):
        ensure_automation(client, automation)
    watch_found(client)
"""


def now(run: FlowRun) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def arrange(service: Up, addresses: dict[str, str], *, silence: dt.timedelta) -> None:
    """What a start of the service does about lost runs, which must not forget those that are there."""
    command = [sys.executable, "-c", ARRANGE, str(silence.total_seconds())]
    subprocess.run(command, cwd=ROOT, env=service.environment | addresses, check=True)


def is_watched(run: FlowRun, service: Up) -> bool:
    """Whether the server has heard that the run was there when the service started."""
    wanted = {"event": {"name": [FOUND[StateType.RUNNING]]}, "resource": {"id": [f"prefect.flow-run.{run.id}"]}}
    answer = httpx.post(f"{service.prefect}/api/events/filter", json={"filter": wanted})
    return bool(answer.raise_for_status().json()["events"])


def running_retrains() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs()
    return [run for run in found if run.name == "retrain household-24h" and run.state.name == "Running"]


@pytest.mark.fault
def test_lost__a_killed_run_without_a_worker_is_marked_as_crashed(retrained: str, service: Up) -> None:
    """As where worker and flow are killed together: nobody is left to tell the server of the run's end."""
    addresses = {
        "PREFECT_API_URL": f"{service.prefect}/api",
        "MLFLOW_TRACKING_URI": service.mlflow,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    alone = subprocess.Popen(
        [sys.executable, "-c", ALONE, RetrainParameters(**LONG | {"seed": 12}).model_dump_json()],
        cwd=ROOT,
        env=service.environment | addresses,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        [run] = until(running_retrains, 300)
        time.sleep(3)  # its first heartbeat leaves as it begins
    finally:
        alone.kill()
        alone.wait()
    assert now(run).state.name == "Running"
    arrange(service, addresses, silence=MINUTE)
    until(lambda: is_watched(run, service), 30)
    until(lambda: now(run).state.name != "Running", 120)
    arrange(service, addresses, silence=SILENCE)
    message = "No heartbeat: its process is gone, or can't send any."
    assert (now(run).state.name, now(run).state.message) == ("Crashed", message)


@pytest.mark.fault
def test_lost__a_run_that_never_begins_is_marked_as_crashed(service: Up) -> None:
    """As where a worker is killed between taking a run and starting it; ten minutes are ten seconds here."""
    quick = ended_without(
        "Quick",
        after={"prefect.flow-run.Pending"},
        expect=["prefect.flow-run.Running"],
        within=SECONDS,
        message="Gone.",
    )
    with get_client(sync_client=True) as client:
        ensure_automation(client, quick)
        ensure_automation(client, quick)
        [automation] = client.read_automations_by_name("Quick")
        deployment = client.read_deployment_by_name("rollback/any")
        tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
        answers = {"parameters": {"name": "household-24h", "version": 1, "by": "ada", "why": "it never begins"}}
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters=answers, state=Scheduled(scheduled_time=tomorrow)
        )
        client.set_flow_run_state(run.id, Pending(), force=True)
        until(lambda: now(run).state.name != "Pending", 90)
        client.delete_automation(automation.id)
    assert (now(run).state.name, now(run).state.message) == ("Crashed", "Gone.")


@pytest.mark.fault
def test_missed__after_hours_without_the_service_only_the_last_forecast_runs(retrained: str, service: Up) -> None:
    since = dt.datetime.now(dt.UTC) - dt.timedelta(hours=4)

    def due() -> list[FlowRun]:
        """The runs of the schedule, in the order of their time."""
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        with get_client(sync_client=True) as client:
            runs = [run for run in client.read_flow_runs(deployment_filter=wanted) if run.auto_scheduled]
        past = [run for run in runs if since < run.expected_start_time < dt.datetime.now(dt.UTC)]
        return sorted(past, key=lambda run: run.expected_start_time)

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("forecast/household").id
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
        # The server's own way to make a schedule's runs, for hours that are past.
        hours = {"start_time": since.isoformat(), "end_time": dt.datetime.now(dt.UTC).isoformat(), "min_runs": 4}
        httpx.post(f"{service.prefect}/api/deployments/{deployment}/schedule", json=hours).raise_for_status()
        # The worker may have run the latest hour's already, right on time.
        late = [run.id for run in due() if not run.state.is_final()]
        assert len(late) >= 3
        cancel_missed(client)
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))
    until(lambda: all(run.state.is_final() for run in due()), 240)
    *earlier, last = (run for run in due() if run.id in late)
    assert last.state.name == "Completed"
    assert {run.state.name for run in earlier} == {"Cancelled"}
    time = f"{earlier[0].expected_start_time:%Y-%m-%d %H:%M}"
    assert earlier[0].state.message.startswith(f"Missed: no worker ran when it was due, at {time} UTC; the run of ")


@pytest.mark.fault
def test_gpu__a_second_training_waits_for_the_first(retrained: str, service: Up) -> None:
    first = run_deployment("retrain/household", parameters={"parameters": LONG}, timeout=0)
    until(lambda: now(first).state.name == "Running", 300)
    origins = {"dataset": "household", "history_days": 24, "lookback_hours": 24, "origins": 1, "period_days": 14}
    second = run_deployment(
        "backtest/household",
        parameters={"parameters": origins | {"device": "cpu", "recipe": SMALL["recipe"]}},
        timeout=0,
    )
    time.sleep(8)  # the worker looks each two seconds
    assert now(second).state.is_scheduled()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(first.id, Cancelling())
    until(lambda: now(first).state.name == "Cancelled", 120)
    until(lambda: now(second).state.is_final(), 240)
    assert now(second).state.name == "Completed", now(second).state.message
