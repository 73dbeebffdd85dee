"""Real processes, killed for real."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from flows.reproduce import environment_of
from schemas.retrain import RetrainParameters
from tests.household import write_slice
from tests.tutelage.builders import recipe_of
from tutelage.model.kinds import Budget

ROOT = Path(__file__).parent.parent.parent
COMMAND = """
import json, sys
from flows.retrain import retrain
from schemas.retrain import RetrainParameters
retrain(RetrainParameters.model_validate_json(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.fault
def test_retrain__goes_on_after_kill_9(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name = write_slice(tmp_path / "datasets", name="killed", days=40)
    patient = Budget(epochs=120, patience=120)
    recipe = recipe_of(
        ensemble_size=8, bins=12, teacher_training=patient, student_training=Budget(epochs=5, patience=5)
    )
    parameters = RetrainParameters(
        dataset=name,
        horizon_hours=1,
        lookback_hours=24,
        history_days=24,
        test_days=14,
        recipe=recipe,
        device="cpu",
        refit=False,
    )
    environment = environment_of(tmp_path)
    command = [sys.executable, "-c", COMMAND, parameters.model_dump_json()]

    first = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not (checkpoints := list(tmp_path.glob("checkpoints/*/teacher-block-1.safetensors"))):
        assert first.poll() is None, first.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    first.stdout.close()
    # Its Prefect server, a child process, outlives it. It is left alive while the second run works, as it would be.
    request.addfinalizer(lambda: _end_group(first.pid))
    trained = _epochs(checkpoints[0])
    assert 0 < trained < 120, "the kill came too late to show anything"

    second = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    output = second.stdout + second.stderr
    assert second.returncode == 0, output
    for stage in ("ingest killed", "validate killed", "features killed-1h"):
        assert f"Task run '{stage}' - Finished in state Cached" in output
    assert f"killed-1h teacher-block-1: epoch {trained} of at most 120" in output, "it goes on from its checkpoint"
    assert trained == 5 or "killed-1h teacher-block-1: epoch 5 of at most 120" not in output

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("killed-1h")
    runs = client.search_runs([experiment.experiment_id])
    stages = sorted(run.data.tags["tutelage.stage"] for run in runs)
    assert stages == ["retrain", "student", "teacher", "twin", "unprivileged"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    [teacher] = [run for run in runs if run.data.tags["tutelage.stage"] == "teacher"]
    steps = [metric.step for metric in client.get_metric_history(teacher.info.run_id, "validation")]
    assert steps == list(range(1, 121)), "each epoch stands in MLflow once"
    assert len(client.search_model_versions("name = 'killed-1h'")) == 1
    assert not list(tmp_path.rglob("*.part"))


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _epochs(checkpoint: Path) -> int:
    from safetensors import safe_open

    with safe_open(checkpoint, "pt") as file:
        return json.loads(file.metadata()["progress"])["epoch"]
