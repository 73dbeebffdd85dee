import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import dataset_of, small_recipe, synthetic_panel
from tutelage.distil.blocks import BLOCKS, fit_teachers
from tutelage.model.networks import Forecaster
from tutelage.model.threads import one_thread


def test_one_thread__puts_back_what_there_was() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(KeyError), one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads__change_no_bit_of_a_training() -> None:
    """Of so many windows: a training on one thread and one on two would differ in each block."""
    panel = synthetic_panel([478])
    dataset = dataset_of(panel, train_hours=301, validation_hours=77, lookback=6)
    before = torch.get_num_threads()

    def weights(threads: int) -> list[dict[str, Tensor]]:
        torch.set_num_threads(threads)
        teachers = [block.teachers for block in fit_teachers(dataset, small_recipe(), seed=4).blocks]
        return [network.state_dict() for [network] in map(dict.values, teachers) if isinstance(network, Forecaster)]

    try:
        single, double = weights(1), weights(2)
    finally:
        torch.set_num_threads(before)
    assert len(single) == len(double) == BLOCKS
    for one, two in zip(single, double, strict=True):
        for name, value in one.items():
            assert torch.equal(value, two[name]), name
