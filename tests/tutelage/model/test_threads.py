import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import dataset_of, small_recipe, synthetic_panel
from tutelage.distil.ensemble import train_ensemble
from tutelage.model.threads import CpuTime, adaptive_threads, free_cores, read_cpu_time


@pytest.mark.parametrize(
    ("busy", "cores", "free"),
    [(0.0, 2, 2), (0.4, 2, 2), (0.6, 2, 1), (5.0, 2, 1), (1.0, 8, 7), (-0.2, 4, 4)],
)
def test_free_cores__are_those_that_others_leave(busy: float, cores: int, free: int) -> None:
    assert free_cores(CpuTime(10, 100), CpuTime(12, 100 + 2 * busy), cores) == free


def test_read_cpu_time__what_this_process_does_is_not_others() -> None:
    before = read_cpu_time()
    total = 0
    while read_cpu_time().wall - before.wall < 0.5:
        total += sum(range(1000))
    after = read_cpu_time()
    cores = torch.get_num_threads()
    assert after.others - before.others < 0.5 * 64
    assert 1 <= free_cores(before, after, max(cores, 1)) <= max(cores, 1)


def test_adaptive_threads__keep_the_limit_and_put_it_back() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with adaptive_threads() as adapt:
            adapt()
            assert 1 <= torch.get_num_threads() <= 2
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        with adaptive_threads() as adapt:
            adapt()
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_threads__change_no_bit_of_a_training() -> None:
    dataset = dataset_of(synthetic_panel([400]), train_hours=300)
    recipe = small_recipe(teacher_width=64, ensemble_size=4)
    before = torch.get_num_threads()

    def weights(threads: int) -> dict[str, Tensor]:
        torch.set_num_threads(threads)
        return train_ensemble(dataset, recipe, seed=0)[0].state_dict()

    try:
        single, double = weights(1), weights(2)
    finally:
        torch.set_num_threads(before)
    for name, value in single.items():
        assert torch.equal(value, double[name]), name
