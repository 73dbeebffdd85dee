"""The champion behind `mlflow models serve`, asked by real HTTP."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.service.conftest import Up, free_port, until

pytestmark = [pytest.mark.service, pytest.mark.slow]


def answer(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as got:
            return got.status, got.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


@pytest.fixture(scope="module")
def served(retrained: str, service: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that serves the champion."""
    url = f"http://127.0.0.1:{free_port()}"
    program = Path(sys.executable).parent / "mlflow"
    asked = ["models", "serve", "--model-uri", "models:/household-24h@champion", "--env-manager", "local"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(program), *asked, "--host", "127.0.0.1", "--port", url.rsplit(":", 1)[1]],
            env=service.environment
            | {"MLFLOW_TRACKING_URI": service.mlflow, "PATH": f"{program.parent}:/usr/bin:/bin"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until(lambda: answer(f"{url}/health")[0] == 200 or process.poll() is not None, 180)
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def example(retrained: str) -> list[dict[str, Any]]:
    """The hours that the version itself brings as an example."""
    path = mlflow.artifacts.download_artifacts(artifact_uri="models:/household-24h@champion/serving_input_example.json")
    return json.loads(Path(path).read_text())["inputs"]


def test_serve__the_champion_answers_a_request(served: str, example: list[dict[str, Any]]) -> None:
    status, body = answer(f"{served}/invocations", {"inputs": example})
    assert status == 200, body
    told = json.loads(body)["predictions"]
    assert len(told) == 24
    assert all(hour["q10"] <= hour["q50"] <= hour["q90"] for hour in told)
    expected = mlflow.pyfunc.load_model("models:/household-24h@champion").predict(example)
    assert [hour["mean"] for hour in told] == pytest.approx(expected["mean"].tolist())


def test_serve__a_bad_request_is_told_in_a_sentence(served: str, example: list[dict[str, Any]]) -> None:
    status, body = answer(f"{served}/invocations", {"inputs": [{**hour, "voltage_v": 240.0} for hour in example]})
    assert status == 400, body
    assert "column voltage_v is unknown" in json.loads(body)["message"]
