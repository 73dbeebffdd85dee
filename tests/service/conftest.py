"""The real service on free ports, once for each process of tests, with a slice of the household as its dataset."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.household import write_slice

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port below those that the system gives to clients, so that no connection takes it before its server does."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True)
class Up:
    """A service that is up: how to reach it, and the environment that names it."""

    home: Path
    environment: dict[str, str]
    process: subprocess.Popen[str]

    @property
    def prefect(self) -> str:
        return f"http://127.0.0.1:{self.environment['PREFECT_PORT']}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.environment['MLFLOW_PORT']}"


def service_environment(home: Path, **changes: str) -> dict[str, str]:
    """An environment in which nothing names another server or another home."""
    ours = ("PREFECT_", "MLFLOW_", "TUTELAGE_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return bare | {
        "TUTELAGE_HOME": str(home),
        "TUTELAGE_DATASETS": str(home / "datasets"),
        "PREFECT_PORT": str(free_port()),
        "MLFLOW_PORT": str(free_port()),
        # Ten and thirty seconds by default, which every run, and every run that waits for another, would take longer.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
        **changes,
    }


def command(wanted: str) -> list[str]:
    return [sys.executable, "-m", "deployments.service", wanted]


def start(home: Path, environment: dict[str, str]) -> Up:
    process = subprocess.Popen(
        command("up"), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = ""
    deadline = time.monotonic() + 300
    while "It is up" not in said:
        line = process.stdout.readline()
        assert line, f"it ended: {said}"
        assert time.monotonic() < deadline
        said += line
    return Up(home, environment, process)


def stop(up: Up) -> str:
    """`down` from elsewhere; returns what both said."""
    done = subprocess.run(command("down"), cwd=ROOT, env=up.environment, capture_output=True, text=True, check=False)
    rest, _ = up.process.communicate(timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert up.process.returncode == 0, rest
    return done.stdout + rest


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The service with the dataset `household` being 230 days of it; Prefect's and MLflow's clients speak to it."""
    home = tmp_path_factory.mktemp("service")
    write_slice(home / "datasets", name="household", days=230)
    up = start(home, service_environment(home))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(up.mlflow)
    with temporary_settings({PREFECT_API_URL: f"{up.prefect}/api"}):
        yield up
    mlflow.set_tracking_uri(before)
    stop(up)


SMALL: dict[str, Any] = {
    "dataset": "household",
    "horizon_hours": 24,
    "lookback_hours": 24,
    "history_days": 24,
    "test_days": 14,
    "device": "cpu",
    "recipe": {
        "teacher": {"ensemble_size": 2, "noise_draws": 2, "training": {"epochs": 4, "patience": 4}},
        "student": {"training": {"epochs": 4, "patience": 4}},
        "distillation": {"bins": 12},
    },
}


def until(found: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait until something is found, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"not found in {seconds} s"
        time.sleep(1)
    return value


def ran(deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """Start a deployment as the page does, wait for its end, and require that it went well."""
    run = run_deployment(deployment, parameters={"parameters": parameters}, timeout=300, poll_interval=2)
    assert run.state.name == "Completed", run.state.message
    return run


@pytest.fixture(scope="session")
def retrained(service: Up) -> str:
    """The id of a retrain that the worker ran. It is too short to earn anything: a person makes it champion.

    It learns up to six days before the readings end, so that there are days to forecast and to verify.
    """
    run = ran("retrain/household", SMALL | {"as_of": "2010-07-25T00:00:00Z"})
    ran("rollback/any", {"name": "household-24h", "version": 1, "by": "ada", "why": "the tests need a champion"})
    return str(run.id)
