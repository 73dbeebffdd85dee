import json
from pathlib import Path

import pytest
import torch

from tests.core.builders import CPU, small_recipe, synthetic_panel, target_alone, task_of
from tutelage.networks import Forecaster
from tutelage.weights import load_network, save_network


@pytest.mark.parametrize("rolled", [False, True])
def test_load_network__is_what_was_saved(rolled: bool, tmp_path: Path) -> None:
    task = task_of(target_alone(synthetic_panel([60])), train_hours=40)
    network = Forecaster(task.shape(small_recipe(rolled=rolled), teacher=False), task.scalers, 2).eval()
    save_network(network, task.scalers, tmp_path, notes={})
    again = load_network(tmp_path, CPU)
    assert again.shape == network.shape
    assert len(again.shape.centres) == (8 if rolled else 0)
    inputs = task.student_inputs(task.train)
    assert torch.equal(again(*inputs), network(*inputs))


def test_load_network__takes_what_was_saved_before_any_was_rolled(tmp_path: Path) -> None:
    task = task_of(synthetic_panel([60]), train_hours=40)
    network = Forecaster(task.shape(small_recipe(), teacher=False), task.scalers, 1)
    save_network(network, task.scalers, tmp_path, notes={})
    told = json.loads((tmp_path / "network.json").read_text())
    del told["shape"]["rolled"], told["shape"]["centres"]
    (tmp_path / "network.json").write_text(json.dumps(told))
    assert load_network(tmp_path, CPU).shape == network.shape
