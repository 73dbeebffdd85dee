from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import CPU
from tutelage.model.layers import MemberAttention, MemberConv, MemberDropout, MemberLinear, first_weights


def dropped(seeds: list[int], rates: list[float], *, epoch: int = 1, rest: tuple[int, ...] = (50,)) -> Tensor:
    layer = MemberDropout(len(seeds), 0.0)
    layer.assign(rates, seeds)
    layer.restart(epoch, CPU)
    return layer(torch.ones(len(seeds), 40, *rest))


def test_member_dropout__drops_each_members_share_and_leaves_the_mean() -> None:
    masked = dropped([1, 2, 3], [0.0, 0.2, 0.6])
    assert (masked == 0).float().mean(dim=(1, 2)).tolist() == pytest.approx([0.0, 0.2, 0.6], abs=0.03)
    assert masked.mean(dim=(1, 2)).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=0.07)


@pytest.mark.parametrize("rest", [(50,), (5, 3)])
def test_member_dropout__depends_on_seed_and_epoch_alone(rest: tuple[int, ...]) -> None:
    together = dropped([7, 8], [0.3, 0.3], rest=rest)
    assert torch.equal(dropped([8], [0.3], rest=rest)[0], together[1])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(dropped([8], [0.3], epoch=2, rest=rest)[0], together[1])


def test_member_dropout__what_a_low_rate_drops_a_higher_one_drops_too() -> None:
    low, high = dropped([7, 7], [0.2, 0.5])
    assert (high[low == 0] == 0).all()


def test_member_dropout__does_nothing_when_not_training() -> None:
    layer = MemberDropout(2, 0.5).eval()
    assert torch.equal(layer(torch.ones(2, 3)), torch.ones(2, 3))


def weights_of_all() -> Tensor:
    layers = MemberLinear(2, 3, 4), MemberConv(2, 3, 4, kernel=3), MemberAttention(2, 8, 2, MemberDropout(2, 0.1))
    return torch.cat([value.detach().flatten() for layer in layers for value in layer.parameters()])


def test_first_weights__depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    with first_weights(3) as generator:
        first, second = weights_of_all(), weights_of_all()
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    with first_weights(3), ThreadPoolExecutor(1) as elsewhere:
        again = weights_of_all()
        elsewhere.submit(weights_of_all).result()  # made next to it, in another thread
        with first_weights(4):
            assert not torch.equal(weights_of_all(), first)
        assert torch.equal(again, first)
        assert torch.equal(weights_of_all(), second)
        after = torch.rand(3, generator=generator)
    assert not torch.equal(after, torch.rand(3, generator=torch.Generator().manual_seed(3)))


def test_member_dropout__without_seeds_draws_from_its_generator() -> None:
    layer = MemberDropout(2, 0.25)
    layer.generator = torch.Generator().manual_seed(5)
    masked = layer(torch.ones(2, 40, 50))
    assert masked.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (masked == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(layer(torch.ones(2, 40, 50)), masked)
    layer.generator.manual_seed(5)
    assert torch.equal(layer(torch.ones(2, 40, 50)), masked)
