from pathlib import Path

import pytest
import torch

from tests.tutelage.builders import CPU, dataset_of, small_network, small_recipe, synthetic_panel, target_alone
from tutelage.model.networks import Forecaster
from tutelage.model.weights import describe, load_network, read_scalers, save_network, write_scalers


@pytest.mark.parametrize("recursive", [False, True])
def test_load_network__is_what_was_saved(recursive: bool, tmp_path: Path) -> None:
    dataset = dataset_of(target_alone(synthetic_panel([60])), train_hours=40)
    config = dataset.student_config(small_recipe(recursive=recursive))
    network = Forecaster(config, dataset.scalers, 2).eval()
    save_network(network, dataset.scalers, tmp_path, notes={})
    again = load_network(tmp_path, CPU)
    assert again.config == config
    assert len(again.config.centres) == (8 if recursive else 0)
    inputs = dataset.student_inputs(dataset.train)
    assert torch.equal(again(*inputs), network(*inputs))


def test_describe__holds_all_that_rebuilds_the_network() -> None:
    dataset = dataset_of(synthetic_panel([60]), train_hours=40)
    described = describe(small_network(dataset, members=2), dataset.scalers)
    assert (described["members"], described["config"]["width"], described["config"]["bins"]) == (2, 8, 8)
    assert described["scalers"]["observed"]["mean"] == dataset.scalers.observed.mean


def test_read_scalers__gives_back_what_was_written() -> None:
    scalers = dataset_of(synthetic_panel([60]), train_hours=40).scalers
    assert read_scalers(write_scalers(scalers)) == scalers
