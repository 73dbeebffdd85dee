import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.core.builders import CPU, small_recipe, synthetic_panel, task_of
from tutelage.distillation import Task
from tutelage.fit import seeded
from tutelage.lessons import make_measure, path_of
from tutelage.networks import Forecaster
from tutelage.recipe import Budget, Head, Recipe
from tutelage.rollout import error_growth, forecast_rolled, train_rolled

PERIOD_HOURS = 17  # so that the calendar does not give it away
NOISE = 0.3


@pytest.fixture(scope="module")
def wave() -> tuple[Task, Tensor]:
    """A noisy sine, and what it is without its noise over each training window's horizon: what a teacher knows."""
    panel = synthetic_panel([500])
    clean = torch.sin(2 * math.pi * torch.arange(500) / PERIOD_HOURS)
    noise = NOISE * torch.randn(500, generator=torch.Generator().manual_seed(0))
    task = task_of(replace(panel, observed=(clean + noise)[:, None]), train_hours=350, lookback=3, horizon=10)
    return task, clean[task.train[:, None] + torch.arange(10)]


def recipe(*, epochs: int = 15, head: Head = "point") -> Recipe:
    budget = Budget(epochs=epochs, patience=epochs, batch_size=64, learning_rate=0.01, dropout=0.0)
    return small_recipe(head=head, student="linear", student_budget=budget)


def network_of(task: Task, head: Head) -> Forecaster:
    shape = replace(task.shape(recipe(head=head), teacher=False), horizon=1)
    with seeded(0, CPU):
        return Forecaster(shape, task.scalers, 1).eval()


def test_train_rolled__errors_build_up_less_than_in_the_twin(wave: tuple[Task, Tensor]) -> None:
    task, path = wave
    growth = {}
    for alpha in (0.9, 0.0):
        network, _ = train_rolled(task, path, recipe(), alpha=alpha, seed=0)
        growth[alpha] = error_growth(network, task, task.validation)
    # Three noisy hours make a step that damps the wave, and a roll-out that ends at the mean: an error of √(½ + 0.09).
    assert growth[0.0][-1] == pytest.approx(math.sqrt(0.5 + NOISE**2), rel=0.15)
    assert growth[0.9][-1] < 0.8 * growth[0.0][-1]
    assert growth[0.9][-1] - growth[0.9][0] < 0.5 * (growth[0.0][-1] - growth[0.0][0])
    assert growth[0.9].min() > NOISE  # the noise is nobody's to foretell


def test_train_rolled__the_teacher_does_not_reach_the_twin(wave: tuple[Task, Tensor]) -> None:
    task, path = wave
    twin, other = (train_rolled(task, target, recipe(epochs=2), alpha=0.0, seed=0)[0] for target in (path, -path))
    assert torch.equal(twin.last.weight, other.last.weight)
    taught, against = (train_rolled(task, target, recipe(epochs=2), alpha=0.9, seed=0)[0] for target in (path, -path))
    assert not torch.allclose(taught.last.weight, against.last.weight)


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_forecast_rolled__every_step_stands_on_the_ones_before(wave: tuple[Task, Tensor], head: Head) -> None:
    task, _ = wave
    network, origin = network_of(task, head), int(task.validation[4])
    measure = make_measure(head, task.edges(), task.scale(), horizon=1, decay=1.0)
    values = task.panel.observed[origin - 3 : origin, 0].tolist()
    for lead in range(task.horizon):
        past, known = torch.tensor(values[-3:]).reshape(1, 3, 1), task.panel.known[origin + lead].reshape(1, 1, -1)
        with torch.no_grad():
            standardised = path_of(measure, network(past, known)).item()
        values.append(standardised * measure.scale[1].item() + measure.scale[0].item())
    found = forecast_rolled(network, task, task.validation, chunk=3)
    assert found.shape == (len(task.validation), task.horizon)
    torch.testing.assert_close(found[4], torch.tensor(values[3:]), rtol=1e-4, atol=1e-5)


def test_forecast_rolled__sees_the_calendar_ahead_and_no_value(wave: tuple[Task, Tensor]) -> None:
    task, _ = wave
    origin, observed, known = task.validation[4:5], task.panel.observed.clone(), task.panel.known.clone()
    observed[int(origin) :] += 9.0
    known[int(origin) + 2, 0] += 6.0
    network = network_of(task, "point")

    def forecast(**panel: Tensor) -> Tensor:
        return forecast_rolled(network, replace(task, panel=replace(task.panel, **panel)), origin)

    before, moved = forecast(), forecast(known=known)
    assert torch.equal(forecast(observed=observed), before)
    assert torch.equal(moved[:, :2], before[:, :2])
    assert (moved[:, 2:] != before[:, 2:]).all()


def test_error_growth__golden(wave: tuple[Task, Tensor]) -> None:
    task, _ = wave
    network = network_of(task, "point")
    with torch.no_grad():
        network.last.weight.zero_()
        network.last.bias.fill_(2.0)
    wrong = task.truth(task.validation[:2]) - (task.scalers.observed.mean[0] + 2 * task.scalers.observed.std[0])
    expected = ((wrong[0] ** 2 + wrong[1] ** 2) / 2).sqrt()
    torch.testing.assert_close(error_growth(network, task, task.validation[:2]), expected)


def test_train_rolled__any_head_learns(wave: tuple[Task, Tensor]) -> None:
    task, path = wave
    _, progress = train_rolled(task, path, recipe(epochs=6, head="categorical"), alpha=0.5, seed=0)
    assert progress.history[-1]["train"][0] < progress.history[0]["train"][0]


def test_train_rolled__refuses_columns_that_nobody_forecasts() -> None:
    task = task_of(synthetic_panel([100]), train_hours=60)
    with pytest.raises(ValueError, match="a roll-out forecasts its own input, and 1 columns are beside it"):
        train_rolled(task, task.truth(task.train), small_recipe(), alpha=0.5, seed=0)
