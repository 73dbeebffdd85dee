"""A service that asks for a user and a password: nobody gets in without, its own worker and clients do."""

import base64
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import ROOT, Up, command, service_environment, start, stop

pytestmark = pytest.mark.service

USER, PASSWORD = "ada", "for-a-test-0123"
PATHS = {
    "prefect": ("api/flows/count", "api/deployments/filter", "api/variables/filter"),
    "mlflow": ("api/2.0/mlflow/experiments/search?max_results=5", "api/2.0/mlflow/registered-models/search", ""),
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("closed")
    (home / "datasets").mkdir()
    up = start(home, service_environment(home, TUTELAGE_USER=USER, TUTELAGE_PASSWORD=PASSWORD))
    try:
        yield up
    finally:
        stop(up)


def status(url: str, *, password: str | None, body: bytes | None = None) -> int:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    if password is not None:
        pair = base64.b64encode(f"{USER}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_closed__answers_only_who_knows_the_password(closed: Up) -> None:
    for server, paths in PATHS.items():
        for path in paths:
            url = f"{getattr(closed, server)}/{path}"
            body = b"{}" if server == "prefect" else None
            answers = [status(url, password=given, body=body) for given in (None, "of-somebody-else", PASSWORD)]
            assert answers == [401, 401, 200], url


def test_closed__its_password_is_in_no_file(closed: Up) -> None:
    files = [path for path in closed.home.rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files if PASSWORD.encode() in path.read_bytes()] == []


def test_closed__a_client_with_the_password_works(closed: Up, tmp_path: Path) -> None:
    code = (
        "import mlflow; print(len(mlflow.search_experiments()))\n"
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client: print(len(client.read_deployments()) > 0)"
    )
    known = {
        "PREFECT_API_URL": f"{closed.prefect}/api",
        "PREFECT_API_AUTH_STRING": f"{USER}:{PASSWORD}",
        "MLFLOW_TRACKING_URI": closed.mlflow,
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "TUTELAGE_HOME": str(tmp_path),
    }
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [command("up")[0], "-c", code], cwd=ROOT, env=bare | known, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["1", "True"], done.stderr


def test_up__open_to_others_without_a_password_is_refused(tmp_path: Path) -> None:
    environment = service_environment(tmp_path, TUTELAGE_HOST="0.0.0.0")
    refused = subprocess.run(command("up"), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.strip().startswith("on 0.0.0.0 others reach the servers, so they must ask for a password:")
