"""The compose file without a container engine: each command of it as a process, with nothing but what its image has.

The files are those that the Dockerfile copies, the environment is that of Dockerfile and compose file, and there is no
git. IMAGE_BIN names the programs of an environment made by the Dockerfile's own command; by default they are the
tests' own.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from tests.household import write_slice
from tests.service.conftest import ROOT, SMALL, free_port, ran, until
from tests.service.postgres import PASSWORD, running_postgres
from tests.service.test_access import PASSWORD as SECRET
from tests.service.test_access import USER, status
from tutelage.data.replay import read_clock

pytestmark = pytest.mark.service

DEPLOYMENTS = ROOT / "deployments"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text(encoding="utf-8"))["services"]
DOCKERFILE = (DEPLOYMENTS / "Dockerfile").read_text(encoding="utf-8")
HOME, CHECKOUT = "/home/tutelage/var", "/home/tutelage/checkout"
REPLAY = "replay: {start: 2010-07-01T00:00:00+01:00, end: 2010-07-30T00:00:00+01:00, hours_per_minute: 24}\n"
STOP_SECONDS = 10
"""What `docker stop` gives a process before it kills it."""


def image(folder: Path) -> dict[str, str]:
    """Copy what the image has into a folder; return the environment of its processes."""
    for places in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        *sources, target = places.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, folder / target)
    programs = Path(os.environ.get("IMAGE_BIN", Path(sys.executable).parent))
    bare = {"PATH": f"{programs}:{folder / 'bin'}", "HOME": str(folder)}
    given = dict(shlex.split(line)[0].split("=", 1) for line in re.findall(r"^ENV (.+)$", DOCKERFILE, re.MULTILINE))
    return bare | {name: value.replace("$GIT_COMMIT", "unknown") for name, value in given.items()}


def in_order() -> list[str]:
    """The services, each after those that it waits for."""
    left, ordered = dict(SERVICES), []
    while left:
        ready = [name for name, service in left.items() if set(service.get("depends_on", ())) <= set(ordered)]
        ordered += ready
        left = {name: service for name, service in left.items() if name not in ready}
    return ordered


@dataclass
class Composed:
    """The services that run, and how to reach them from outside."""

    folder: Path
    home: Path
    ports: dict[str, int]
    environment: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def own(self, text: str) -> str:
        """A text of the compose file with this machine's places for the containers'."""
        for name, port in self.ports.items():
            text = re.sub(rf"\b{name}:\d+", f"127.0.0.1:{port}", text)
        given = {"POSTGRES_PASSWORD": PASSWORD, "TUTELAGE_USER": USER, "TUTELAGE_PASSWORD": SECRET}
        text = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: given[found.group(1)], text)
        return text.replace(HOME, str(self.home)).replace(CHECKOUT, str(self.folder))

    def environment_of(self, name: str) -> dict[str, str]:
        ports = {f"{server.upper()}_PORT": str(self.ports[server]) for server in ("prefect", "mlflow")}
        given = SERVICES[name]["environment"]
        return self.environment | ports | {each: self.own(value) for each, value in given.items()}

    def start(self, name: str) -> None:
        """Start a service, and wait until whoever depends on it may start."""
        environment, service = self.environment_of(name), SERVICES[name]
        program = self.environment["PATH"].split(":")[0]
        command = [f"{program}/{service['command'][0]}", *map(self.own, service["command"][1:])]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        if service["restart"] == "no":
            assert process.wait(240) == 0, self.said(name)
            return
        self.running[name] = process
        if "healthcheck" in service:
            _, python, *check = service["healthcheck"]["test"]

            def healthy() -> bool:
                assert process.poll() is None, self.said(name)
                asked = [f"{program}/{python}", *check]
                return subprocess.run(asked, cwd=self.folder, env=environment, check=False).returncode == 0

            until(healthy, 240)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def stop(self) -> dict[str, float]:
        """End all as `docker stop` does, those that others wait for last; return the seconds that each took."""
        took = {}
        for name in reversed(self.running):
            begun = time.monotonic()
            self.running[name].send_signal(signal.SIGTERM)
            self.running[name].wait(60)
            took[name] = time.monotonic() - begun
        return took


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    folder, home = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("volume")
    environment = image(folder)
    write_slice(folder / "deployments" / "datasets", name="household", days=230)
    path = folder / "deployments" / "datasets" / "household.yaml"
    path.write_text(path.read_text(encoding="utf-8") + REPLAY)
    ports = {name: free_port() for name in ("postgres", "prefect", "mlflow")}
    with running_postgres(tmp_path_factory.mktemp("records") / "data", ports["postgres"]):
        up = Composed(folder, home, ports, environment)
        before = mlflow.get_tracking_uri()
        try:
            for name in in_order()[1:]:
                up.start(name)
            mlflow.set_tracking_uri(f"http://127.0.0.1:{ports['mlflow']}")
            url = f"http://127.0.0.1:{ports['prefect']}/api"
            with (
                pytest.MonkeyPatch.context() as patch,
                temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: f"{USER}:{SECRET}"}),
            ):
                patch.setenv("MLFLOW_TRACKING_USERNAME", USER)
                patch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
                yield up
        finally:
            mlflow.set_tracking_uri(before)
            took = up.stop()
    assert max(took.values()) < STOP_SECONDS, took


def test_image__has_no_git(composed: Composed) -> None:
    assert shutil.which("git", path=composed.environment["PATH"]) is None


def test_servers__ask_for_the_password(composed: Composed) -> None:
    for url in (
        f"http://127.0.0.1:{composed.ports['prefect']}/api/version",
        f"http://127.0.0.1:{composed.ports['mlflow']}/api/2.0/mlflow/experiments/search?max_results=5",
    ):
        answers = [status(url, password=given) for given in (None, "of-somebody-else", SECRET)]
        assert answers == [401, 401, 200], url


def test_replay__its_clock_runs_and_its_first_retrain_begins(composed: Composed) -> None:
    path = composed.home / "clock" / "household.json"
    clock = until(lambda: read_clock(path), 60)
    until(lambda: read_clock(path) != clock, 30)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/household")
        assert {schedule.slug for schedule in deployment.schedules} == {"weekly", "replay"}

        def first() -> Any:
            return next((run for run in client.read_flow_runs() if run.deployment_id == deployment.id), None)

        until(lambda: first().state.name == "Running", 240)
        client.set_flow_run_state(first().id, Cancelling())
        until(lambda: first().state.name == "Cancelled", 120)


def test_worker__retrains_and_forecasts(composed: Composed) -> None:
    ran("retrain/household", SMALL)
    ran("rollback/any", {"name": "household-24h", "version": 1, "by": "ada", "why": "the tests need a champion"})
    ran("forecast/household", {"dataset": "household", "horizon_hours": 24})
    client = mlflow.MlflowClient()
    [version] = client.search_model_versions("name = 'household-24h'")
    assert client.get_run(version.run_id).data.tags["git_commit"] == "unknown"
    for folder in ("mlflow-artifacts", "results", "trainings", "forecasts/household-24h"):
        assert any((composed.home / folder).iterdir()), "models and the cache are in the volume"
    assert not (composed.home / "mlflow.db").exists(), "the records are in PostgreSQL"
