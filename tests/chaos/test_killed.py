"""A real process, killed for real, while it trains."""

import json
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.chaos.retrains import Retrain, new_home, parameters_of, require_one_end, servers_of
from tests.tutelage.builders import recipe_of
from tutelage.model.kinds import Budget


@pytest.mark.slow
@pytest.mark.fault
def test_retrain__goes_on_after_kill_9(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    patient = Budget(epochs=120, patience=120)
    recipe = recipe_of(
        ensemble_size=8, bins=12, teacher_training=patient, student_training=Budget(epochs=5, patience=5)
    )
    parameters = parameters_of(recipe=recipe, refit=False)

    first = Retrain(home, parameters)
    deadline = time.monotonic() + 240
    while not (checkpoints := list(home.glob("checkpoints/*/teacher-block-1.safetensors"))):
        assert first.process.poll() is None, first.said
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send()
    trained = _epochs(checkpoints[0])
    assert 0 < trained < 120, "the kill came too late to show anything"
    assert servers_of(home), "its Prefect server outlives it"

    second = Retrain(home, parameters).succeed()
    assert [second.finished[stage] for stage in ("ingest", "validate", "features")] == ["Cached"] * 3
    assert f"chaos-1h teacher-block-1: epoch {trained} of at most 120" in second.said, "it goes on from its checkpoint"
    assert trained == 5 or "chaos-1h teacher-block-1: epoch 5 of at most 120" not in second.said
    require_one_end(home, epochs=120)
    assert not servers_of(home)


def _epochs(checkpoint: Path) -> int:
    with safe_open(checkpoint, "pt") as file:
        return int(json.loads(file.metadata()["progress"])["epoch"])
