import math
from dataclasses import replace

import pytest
import torch

from tests.core.builders import hours_span, plain_scalers, small_network, synthetic_panel, task_of
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
