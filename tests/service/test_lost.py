"""Runs that are killed, and trainings that wait for each other, on the real servers."""

import subprocess
import sys
import time
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from deployments.arrange import SILENCE
from schemas.retrain import RetrainParameters
from tests.service.conftest import ROOT, SMALL, Up, until

pytestmark = [pytest.mark.service, pytest.mark.slow]

LONG: dict[str, Any] = SMALL | {
    "seed": 11,
    "recipe": SMALL["recipe"]
    | {"teacher": SMALL["recipe"]["teacher"] | {"training": {"epochs": 2000, "patience": 200}}},
}
"""A training that nobody waits for."""
ALONE = """
import sys
from flows.retrain import retrain
from schemas.retrain import RetrainParameters
retrain(RetrainParameters.model_validate_json(sys.argv[1]))
"""


def now(run: FlowRun) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def running_retrains() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs()
    return [run for run in found if run.name == "retrain household-24h" and run.state.name == "Running"]


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
    killed = time.monotonic()
    assert now(run).state.name == "Running"
    until(lambda: now(run).state.name != "Running", SILENCE.total_seconds() + 60)
    assert (now(run).state.name, now(run).state.message) == ("Crashed", "No heartbeat: its process is gone.")
    assert time.monotonic() - killed > SILENCE.total_seconds() / 2, "something else ended it"


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
