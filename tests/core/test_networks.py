import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.core.builders import (
    CPU,
    hours_span,
    plain_scalers,
    small_network,
    small_recipe,
    synthetic_panel,
    target_alone,
    task_of,
)
from tutelage.distillation import Task
from tutelage.fit import seeded
from tutelage.lessons import make_measure, path_of
from tutelage.networks import (
    CALENDAR_ENCODED,
    Forecaster,
    MemberDropout,
    Scaler,
    Shape,
    encode_known,
    fit_scaler,
    fit_scalers,
    select_members,
    stack_members,
)
from tutelage.recipe import Head


def test_fit_scaler__golden() -> None:
    values = torch.tensor([[1.0, 7.0, torch.nan], [torch.nan, 7.0, torch.nan], [3.0, 7.0, torch.nan], [5.0, 7.0, 2.0]])
    assert fit_scaler(values) == Scaler(mean=(3.0, 7.0, 2.0), std=(2.0, 1.0, 1.0))


def test_fit_scaler__no_columns() -> None:
    assert fit_scaler(torch.zeros(5, 0)) == Scaler((), ())


def test_fit_scalers__know_the_training_hours_alone() -> None:
    panel = synthetic_panel([40, 40], missing=0.1, starts=[0, 10])
    train = hours_span(5, 20)
    before = fit_scalers(panel, train)
    outside = ~torch.isin(panel.hour, torch.tensor(train.hours))
    for values in (panel.observed, panel.known, panel.auxiliary, panel.minutes):
        values[outside] = 1e6
    assert fit_scalers(panel, train) == before
    panel.auxiliary[~outside] += 1.0
    changed = fit_scalers(panel, train)
    assert changed.auxiliary.mean == pytest.approx([mean + 1 for mean in before.auxiliary.mean], rel=1e-5)
    assert replace(changed, auxiliary=before.auxiliary) == before


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
    task = task_of(synthetic_panel([60]), train_hours=40)
    network = small_network(task)
    observed, known = task.student_inputs(task.train)
    plain = Forecaster(network.shape, plain_scalers(observed=2, known=3), 2)
    weights = {name: value for name, value in network.state_dict().items() if "scaler" not in name}
    plain.load_state_dict(plain.state_dict() | weights)
    scaler = task.scalers.observed
    standardised = (observed - torch.tensor(scaler.mean)) / torch.tensor(scaler.std)
    torch.testing.assert_close(network(observed, known), plain(standardised, known))


def test_forecaster__members_equal_networks_built_apart() -> None:
    task = task_of(synthetic_panel([60]), train_hours=40)
    network = small_network(task, members=3).eval()
    inputs = task.student_inputs(task.train)
    together = network(*inputs)
    assert together.shape == (3, len(task.train), task.horizon, len(task.bins))
    for member in range(3):
        alone = select_members(network, task.scalers, [member]).eval()
        torch.testing.assert_close(alone(*inputs)[0], together[member])
    assert not torch.allclose(together[0], together[1])


def test_select_members__copies_in_the_order_asked_for() -> None:
    task = task_of(synthetic_panel([60]), train_hours=40)
    network = small_network(task, members=3)
    chosen = select_members(network, task.scalers, [2, 0, 0])
    for name, weight in chosen.named_parameters():
        assert torch.equal(weight, network.get_parameter(name)[[2, 0, 0]])
    before = network.body.first.weight.detach().clone()
    torch.nn.init.zeros_(chosen.body.first.weight)
    assert torch.equal(network.body.first.weight, before)


def test_forecaster__drops_units_only_while_training() -> None:
    task = task_of(synthetic_panel([60]), train_hours=40)
    network = small_network(task, dropout=0.5)
    inputs = task.student_inputs(task.train)
    assert not torch.equal(network.train()(*inputs), network(*inputs))
    assert torch.equal(network.eval()(*inputs), network(*inputs))


def test_shape__a_teacher_is_as_wide_as_its_views() -> None:
    shape = Shape(lookback=4, horizon=2, observed=2, known=4, privileged=5, bins=8, width=16, dropout=0.0)
    network = Forecaster(shape, plain_scalers(observed=2, known=4), 1)
    assert network.body.first.weight.shape == (1, 4 * 2 + 2 * (CALENDAR_ENCODED + 1) + 5, 16)


def test_stack_members__puts_networks_side_by_side() -> None:
    task = task_of(synthetic_panel([60]), train_hours=40)
    one, two = small_network(task, members=1, seed=1), small_network(task, members=2, seed=2)
    stacked = stack_members([one, two], task.scalers)
    inputs = task.student_inputs(task.train)
    expected = torch.cat([network.eval()(*inputs) for network in (one, two)])
    torch.testing.assert_close(stacked.eval()(*inputs), expected)


def dropped(seeds: list[int], rates: list[float], *, epoch: int = 1, rest: tuple[int, ...] = (50,)) -> torch.Tensor:
    layer = MemberDropout(len(seeds), 0.0)
    layer.assign(rates, seeds)
    layer.restart(epoch, torch.device("cpu"))
    return layer(torch.ones(len(seeds), 40, *rest))


def test_member_dropout__drops_each_members_share_and_keeps_the_mean() -> None:
    found = dropped([1, 2, 3], [0.0, 0.2, 0.6])
    assert (found == 0).float().mean(dim=(1, 2)).tolist() == pytest.approx([0.0, 0.2, 0.6], abs=0.03)
    assert found.mean(dim=(1, 2)).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=0.07)


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


HEADS: list[Head] = ["categorical", "quantiles", "point"]


@pytest.fixture(scope="module")
def alone() -> Task:
    """A task without observed columns beside the target, which can be rolled out."""
    return task_of(target_alone(synthetic_panel([60])), train_hours=40, lookback=3, horizon=4)


def rolled(task: Task, head: Head, *, members: int = 2) -> Forecaster:
    shape = task.shape(small_recipe(head=head, rolled=True), teacher=False)
    with seeded(0, CPU):
        return Forecaster(shape, task.scalers, members).eval()


@pytest.mark.parametrize("head", HEADS)
def test_rolled__every_step_stands_on_the_ones_before(alone: Task, head: Head) -> None:
    network = rolled(alone, head)
    next_hour = Forecaster(replace(network.shape, horizon=1, rolled=False), alone.scalers, 2).eval()
    next_hour.load_state_dict(network.state_dict())
    measure = make_measure(head, alone.edges(), alone.scale(), horizon=1, decay=1.0)
    origin = int(alone.train[4])
    with torch.no_grad():
        found = network(*alone.student_inputs(alone.train))
    for member in range(2):
        values = alone.panel.observed[origin - 3 : origin, 0].tolist()
        for lead in range(4):
            past, known = torch.tensor(values[-3:]).reshape(1, 3, 1), alone.panel.known[origin + lead].reshape(1, 1, -1)
            with torch.no_grad():
                outputs = next_hour(past, known)[member : member + 1]
            torch.testing.assert_close(found[member, 4, lead], outputs[0, 0, 0], rtol=1e-4, atol=1e-5)
            values.append(measure.scale[0].item() + measure.scale[1].item() * path_of(measure, outputs).item())


@pytest.mark.parametrize("head", HEADS)
def test_rolled__each_hours_calendar_reaches_it_and_what_comes_after(alone: Task, head: Head) -> None:
    network = rolled(alone, head)
    observed, known = alone.student_inputs(alone.train[4:5])
    later = known.clone()
    later[:, 2, 0] += 6.0
    before, moved = network(observed, known), network(observed, later)
    assert torch.equal(moved[:, :, :2], before[:, :, :2])
    assert (moved[:, :, 2:] != before[:, :, 2:]).any(dim=-1).all()


class Share(nn.Module):
    """A body whose one hidden unit is a share of the newest hour."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        return (self.share * past[..., -1, :]).expand(1, -1, -1)


def test_rolled__golden_with_the_gradient_of_the_whole_way() -> None:
    shape = Shape(2, 3, 1, 3, 0, bins=4, width=1, dropout=0.0, head="point", rolled=True)
    network = Forecaster(shape, plain_scalers(observed=1, known=3), 1)
    network.body = body = Share()
    with torch.no_grad():
        network.last.weight.fill_(1.0)
        network.last.bias.zero_()
    path = network(torch.tensor([[[0.0], [8.0]]]), torch.zeros(1, 3, 3)).flatten()
    assert path.tolist() == [4.0, 2.0, 1.0]
    (path - torch.tensor([4.0, 3.0, 3.0])).square().mean().backward()
    # d/da of (8a - 4)² + (8a² - 3)² + (8a³ - 3)² over 3, at ½.
    assert body.share.grad is not None
    assert body.share.grad.item() == pytest.approx((0 + 2 * -1 * 8 + 2 * -2 * 6) / 3)


@pytest.mark.parametrize("head", HEADS)
def test_rolled__members_equal_networks_built_apart(alone: Task, head: Head) -> None:
    network = rolled(alone, head, members=3)
    inputs = alone.student_inputs(alone.train)
    together = network(*inputs)
    for member in range(3):
        single = select_members(network, alone.scalers, [member]).eval()
        torch.testing.assert_close(single(*inputs)[0], together[member], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1])
