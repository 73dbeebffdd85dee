from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.tutelage.builders import plain_scalers, recipe_of
from tutelage.model.architectures import ARCHITECTURES, NetworkConfig, Tcn
from tutelage.model.kinds import Architecture
from tutelage.model.layers import first_weights
from tutelage.model.networks import Forecaster, select_members

ALL = list(ARCHITECTURES)


def network_of(
    architecture: Architecture, *, members: int = 2, lookback: int = 30, privileged: int = 0, dropout: float = 0.0
) -> Forecaster:
    config = NetworkConfig(lookback, 3, 2, 4, privileged, bins=5, width=16, dropout=dropout, architecture=architecture)
    with first_weights(0):
        return Forecaster(config, plain_scalers(observed=2, known=4), members)


def inputs(*, batch: int = 7, lookback: int = 30, privileged: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    observed = torch.randn(batch, lookback, 2, generator=generator)
    known = torch.rand(batch, 3, 4, generator=generator)
    return observed, known, torch.randn(batch, privileged, generator=generator) if privileged else None


def test_architectures__are_those_of_the_recipe() -> None:
    assert set(ALL) == set(get_args(Architecture))


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("lookback", [1, 2, 24, 30])
def test_forecaster__every_architecture_takes_any_lookback(architecture: Architecture, lookback: int) -> None:
    network = network_of(architecture, lookback=lookback)
    assert network(*inputs(lookback=lookback)).shape == (2, 7, 3, 5)
    assert network.hidden(*inputs(lookback=lookback)).shape == (2, 7, 16)


@pytest.mark.parametrize("architecture", ALL)
def test_forecaster__members_of_every_architecture_equal_networks_built_apart(architecture: Architecture) -> None:
    network = network_of(architecture, members=3, privileged=6).eval()
    given = inputs(privileged=6)
    together = network(*given)
    for member in range(3):
        alone = select_members(network, plain_scalers(observed=2, known=4), [member]).eval()
        torch.testing.assert_close(alone(*given)[0], together[member], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("architecture", ALL)
def test_forecaster__members_of_every_architecture_do_not_mix(architecture: Architecture) -> None:
    network = network_of(architecture, members=2, privileged=6, dropout=0.2).train()
    network(*inputs(privileged=6))[0].square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad[0].any(), name
        assert not weight.grad[1].any(), name


@pytest.mark.parametrize("architecture", ALL)
def test_forecaster__every_architecture_sees_all_of_its_inputs(architecture: Architecture) -> None:
    network = network_of(architecture, members=1, privileged=6)
    given = [part.requires_grad_() for part in inputs(privileged=6) if part is not None]
    network(*given)[0, 0].square().sum().backward()
    for part in given:
        assert part.grad is not None
        assert not part.grad[1:].any()  # no other window of the batch
    assert given[0].grad is not None
    assert given[0].grad[0].any(dim=1).all()  # every hour of the past
    assert given[2].grad is not None
    assert given[2].grad[0].all()


@pytest.mark.parametrize("architecture", ALL)
def test_forecaster__a_student_of_the_defaults_has_at_most_300_000_weights(architecture: Architecture) -> None:
    recipe = recipe_of(architecture=architecture)
    config = NetworkConfig(
        168, 24, 1, 3, 0, recipe.distillation.bins, recipe.student.width, 0.2, recipe.student.architecture
    )
    network = Forecaster(config, plain_scalers(observed=1, known=3), 1)
    assert sum(weight.numel() for weight in network.parameters()) <= 300_000


def test_linear__has_no_bend() -> None:
    network = network_of("linear").eval()
    (first, known, _), (other, _, _) = inputs(), inputs(lookback=30, batch=7)
    other = other.flip(0)
    middle = network((first + other) / 2, known, None)
    torch.testing.assert_close(middle, (network(first, known, None) + network(other, known, None)) / 2)


def test_linear__a_constant_past_has_no_remainder() -> None:
    network = network_of("linear", members=1, lookback=30)
    weight = network.architecture.first.weight
    trend = 30 * 2
    with torch.no_grad():
        weight[:, trend : 2 * trend] += 100.0
    observed, known, _ = inputs()
    constant = torch.full_like(observed, 3.0)
    before = network_of("linear", members=1, lookback=30)
    torch.testing.assert_close(network(constant, known), before(constant, known), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("lookback", [1, 2, 7, 30])
def test_tcn__is_that_of_dilated_convolutions_at_the_last_step(lookback: int) -> None:
    tcn = network_of("tcn", members=1, lookback=lookback).architecture
    observed, _, _ = inputs(lookback=lookback)
    short = dilated = observed.transpose(1, 2)
    for number, step in enumerate(tcn.steps):
        weight, dilation = step.weight[0], 2**number
        padded = functional.pad(dilated, (2 * dilation, 0))
        further = functional.gelu(functional.conv1d(padded, weight, step.bias[0], dilation=dilation))
        dilated = dilated + further if number else further
        further = functional.gelu(step(short))
        short = short[..., (short.shape[-1] - 1) % 2 :: 2] + further if number else further
    torch.testing.assert_close(short[..., -1], dilated[..., -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lookback", [2, 7, 168])
def test_tcn__reaches_the_whole_past_with_no_layer_too_many(lookback: int) -> None:
    tcn = network_of("tcn", lookback=lookback).architecture
    assert isinstance(tcn, Tcn)
    layers = len(tcn.steps)
    assert 1 + 2 * (2**layers - 1) >= lookback
    assert layers == 1 or 1 + 2 * (2 ** (layers - 1) - 1) < lookback


def test_inverted__of_a_teacher_shares_attention_among_the_students_tokens() -> None:
    teacher, maps = network_of("inverted", members=1, privileged=6).eval(), []
    teacher.architecture.layers[-1].register_forward_hook(lambda layer, given, out: maps.append(out[1]))
    with torch.no_grad():
        states = teacher.states(*inputs(batch=3, privileged=6))
    whole = maps[0]
    assert whole.shape[-1] == 2 + 7 + 1  # observed columns, what is known ahead, and all that is privileged
    assert states.tokens is not None
    assert states.maps is not None
    assert states.tokens.shape[2] == states.maps.shape[-1] == 9
    torch.testing.assert_close(states.maps[..., 0, 1], whole[..., 0, 1] / (1 - whole[..., 0, 9]))
    torch.testing.assert_close(states.maps.sum(dim=-1), torch.ones(states.maps.shape[:-1]))


def test_states__at_chooses_members_and_windows() -> None:
    student = network_of("inverted", members=3).eval()
    with torch.no_grad():
        states = student.states(*inputs())
    chosen = states.at(torch.tensor([2, 0]))
    for name, value in vars(states).items():
        assert torch.equal(getattr(chosen, name), value[[2, 0]]), name
    with torch.no_grad():
        plain = network_of("mlp").states(*inputs()).at([0])
    assert (plain.tokens, plain.maps) == (None, None)
