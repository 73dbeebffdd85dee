import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.tutelage.builders import (
    dataset_of,
    plain_scalers,
    small_network,
    small_recipe,
    synthetic_panel,
    target_alone,
)
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.objective import make_head_loss, path_of
from tutelage.model.architectures import NetworkConfig
from tutelage.model.kinds import Head
from tutelage.model.layers import first_weights
from tutelage.model.networks import CALENDAR_ENCODED, Forecaster, encode_known, select_members, stack_members


def test_encode_known__hour_and_weekday_lie_on_a_circle() -> None:
    hours = torch.tensor([[float(i % 24), float(i // 24), 0.0] for i in range(168)])
    encoded = encode_known(hours.unsqueeze(0), torch.tensor([[0.0] * 3, [1.0] * 3]))[0]
    for circle, steps in ((encoded[:24, :2], 24), (encoded[::24, 2:4], 7)):
        torch.testing.assert_close(circle.norm(dim=1), torch.ones(steps))
        around = torch.cat([circle, circle[:1]]).diff(dim=0).norm(dim=1)
        torch.testing.assert_close(around, torch.full((steps,), 2 * math.sin(math.pi / steps)), rtol=1e-5, atol=1e-6)
    assert encoded[::24, 4].tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_encode_known__holiday_and_known_columns() -> None:
    known = torch.tensor([[[0.0, 0.0, 1.0, 14.0]]])
    encoded = encode_known(known, torch.tensor([[0.0, 0.0, 0.0, 10.0], [1.0, 1.0, 1.0, 2.0]]))
    assert encoded.shape[-1] == CALENDAR_ENCODED + 1
    assert encoded[0, 0, 5:].tolist() == [1.0, 2.0]


def test_forecaster__scales_its_own_inputs() -> None:
    dataset = dataset_of(synthetic_panel([60]), train_hours=40)
    network = small_network(dataset)
    observed, known = dataset.student_inputs(dataset.train)
    plain = Forecaster(network.config, plain_scalers(observed=2, known=3), 2)
    weights = {name: value for name, value in network.state_dict().items() if "scaler" not in name}
    plain.load_state_dict(plain.state_dict() | weights)
    scaler = dataset.scalers.observed
    standardised = (observed - torch.tensor(scaler.mean)) / torch.tensor(scaler.std)
    torch.testing.assert_close(network(observed, known), plain(standardised, known))


def test_forecaster__members_equal_networks_built_apart() -> None:
    dataset = dataset_of(synthetic_panel([60]), train_hours=40)
    network = small_network(dataset, members=3).eval()
    inputs = dataset.student_inputs(dataset.train)
    together = network(*inputs)
    assert together.shape == (3, len(dataset.train), dataset.horizon, len(dataset.bins))
    for member in range(3):
        alone = select_members(network, dataset.scalers, [member]).eval()
        torch.testing.assert_close(alone(*inputs)[0], together[member])
    assert not torch.allclose(together[0], together[1])


def test_select_members__copies_in_the_order_asked_for() -> None:
    dataset = dataset_of(synthetic_panel([60]), train_hours=40)
    network = small_network(dataset, members=3)
    chosen = select_members(network, dataset.scalers, [2, 0, 0])
    for name, weight in chosen.named_parameters():
        assert torch.equal(weight, network.get_parameter(name)[[2, 0, 0]])
    before = network.architecture.first.weight.detach().clone()
    torch.nn.init.zeros_(chosen.architecture.first.weight)
    assert torch.equal(network.architecture.first.weight, before)


def test_forecaster__drops_units_only_while_training() -> None:
    dataset = dataset_of(synthetic_panel([60]), train_hours=40)
    network = small_network(dataset, dropout=0.5)
    inputs = dataset.student_inputs(dataset.train)
    assert not torch.equal(network.train()(*inputs), network(*inputs))
    assert torch.equal(network.eval()(*inputs), network(*inputs))


def test_forecaster__a_teacher_has_inputs_for_its_views() -> None:
    config = NetworkConfig(lookback=4, horizon=2, observed=2, known=4, privileged=5, bins=8, width=16, dropout=0.0)
    network = Forecaster(config, plain_scalers(observed=2, known=4), 1)
    assert network.architecture.first.weight.shape == (1, 4 * 2 + 2 * (CALENDAR_ENCODED + 1) + 5, 16)


def test_stack_members__puts_networks_side_by_side() -> None:
    dataset = dataset_of(synthetic_panel([60]), train_hours=40)
    networks = [small_network(dataset, members=members, seed=members) for members in (1, 2)]
    stacked = stack_members(networks, dataset.scalers)
    inputs = dataset.student_inputs(dataset.train)
    expected = torch.cat([network.eval()(*inputs) for network in networks])
    torch.testing.assert_close(stacked.eval()(*inputs), expected)


HEADS: list[Head] = ["categorical", "quantiles", "point"]


@pytest.fixture(scope="module")
def alone() -> WindowDataset:
    """A dataset without observed columns beside the target, as a recursive network needs it."""
    return dataset_of(target_alone(synthetic_panel([60])), train_hours=40, lookback=3, horizon=4)


def recursive(dataset: WindowDataset, head: Head, *, members: int = 2) -> Forecaster:
    config = dataset.student_config(small_recipe(head=head, recursive=True))
    with first_weights(0):
        return Forecaster(config, dataset.scalers, members).eval()


@pytest.mark.parametrize("head", HEADS)
def test_recursive__every_step_stands_on_the_ones_before(alone: WindowDataset, head: Head) -> None:
    network = recursive(alone, head)
    next_hour = Forecaster(replace(network.config, horizon=1, recursive=False), alone.scalers, 2).eval()
    next_hour.load_state_dict(network.state_dict())
    head_loss = make_head_loss(head, alone.edges(), alone.scale(), horizon=1, decay=1.0)
    origin = int(alone.train[4])
    with torch.no_grad():
        forecast = network(*alone.student_inputs(alone.train))
    for member in range(2):
        values = alone.panel.observed[origin - 3 : origin, 0].tolist()
        for lead in range(4):
            past, known = torch.tensor(values[-3:]).reshape(1, 3, 1), alone.panel.known[origin + lead].reshape(1, 1, -1)
            with torch.no_grad():
                outputs = next_hour(past, known)[member : member + 1]
            torch.testing.assert_close(forecast[member, 4, lead], outputs[0, 0, 0], rtol=1e-4, atol=1e-5)
            mean, std = head_loss.scale.tolist()
            values.append(mean + std * path_of(head_loss, outputs).item())


@pytest.mark.parametrize("head", HEADS)
def test_recursive__each_hours_calendar_reaches_it_and_what_comes_after(alone: WindowDataset, head: Head) -> None:
    network = recursive(alone, head)
    observed, known = alone.student_inputs(alone.train[4:5])
    later = known.clone()
    later[:, 2, 0] += 6.0
    before, moved = network(observed, known), network(observed, later)
    assert torch.equal(moved[:, :, :2], before[:, :, :2])
    assert (moved[:, :, 2:] != before[:, :, 2:]).any(dim=-1).all()


class Share(nn.Module):
    """An architecture whose only hidden unit is a share of the newest hour."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        return (self.share * past[..., -1, :]).expand(1, -1, -1)


def test_recursive__golden_with_the_gradient_of_the_whole_way() -> None:
    config = NetworkConfig(2, 3, 1, 3, 0, bins=4, width=1, dropout=0.0, head="point", recursive=True)
    network = Forecaster(config, plain_scalers(observed=1, known=3), 1)
    network.architecture = architecture = Share()
    with torch.no_grad():
        network.last.weight.fill_(1.0)
        network.last.bias.zero_()
    path = network(torch.tensor([[[0.0], [8.0]]]), torch.zeros(1, 3, 3)).flatten()
    assert path.tolist() == [4.0, 2.0, 1.0]
    (path - torch.tensor([4.0, 3.0, 3.0])).square().mean().backward()
    # d/da of (8a - 4)² + (8a² - 3)² + (8a³ - 3)² over 3, at ½.
    assert architecture.share.grad is not None
    assert architecture.share.grad.item() == pytest.approx((0 + 2 * -1 * 8 + 2 * -2 * 6) / 3)


@pytest.mark.parametrize("head", HEADS)
def test_recursive__members_equal_networks_built_apart(alone: WindowDataset, head: Head) -> None:
    network = recursive(alone, head, members=3)
    inputs = alone.student_inputs(alone.train)
    together = network(*inputs)
    for member in range(3):
        single = select_members(network, alone.scalers, [member]).eval()
        torch.testing.assert_close(single(*inputs)[0], together[member], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1])
