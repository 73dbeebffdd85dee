import itertools

import pytest
import torch
from torch import Tensor

from tests.core.builders import READINGS, small_recipe, synthetic_panel, task_of
from tutelage.distillation import Task
from tutelage.networks import Forecaster
from tutelage.recipe import Views
from tutelage.views import privileged_values, privileged_width, shuffle_windows

LOOKBACK, HORIZON = 4, 2
FUTURE = Views(future_sigma=0.0, minutes_hours=0, auxiliary=False)
PAST = Views(future_sigma=None, minutes_hours=3, auxiliary=True)
NOTHING = Views(future_sigma=None, minutes_hours=0, auxiliary=False)


@pytest.fixture
def task() -> Task:
    return task_of(synthetic_panel([80]), train_hours=50, lookback=LOOKBACK, horizon=HORIZON)


def values(task: Task, views: Views, origins: Tensor, *, seed: int = 0) -> Tensor:
    return privileged_values(
        task.panel,
        origins,
        views,
        task.scalers,
        lookback=LOOKBACK,
        horizon=HORIZON,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize(
    ("sigma", "minutes_hours", "auxiliary"),
    list(itertools.product([None, 0.0, 2.0], [0, 3, LOOKBACK + 9], [False, True])),
)
def test_privileged_width__is_that_of_the_values(
    task: Task, sigma: float | None, minutes_hours: int, auxiliary: bool
) -> None:
    views = Views(future_sigma=sigma, minutes_hours=minutes_hours, auxiliary=auxiliary)
    expected = HORIZON * (sigma is not None) + READINGS * min(minutes_hours, LOOKBACK) + 2 * LOOKBACK * auxiliary
    assert privileged_width(task.panel, views, lookback=LOOKBACK, horizon=HORIZON) == expected
    assert values(task, views, task.train).shape == (len(task.train), expected)


def test_privileged_values__without_noise_the_future_is_exact(task: Task) -> None:
    mean, std = task.scalers.observed.mean[0], task.scalers.observed.std[0]
    origin = int(task.train[5])
    truth = (task.panel.observed[origin : origin + HORIZON, 0] - mean) / std
    torch.testing.assert_close(values(task, FUTURE, task.train[5:6])[0], truth)


def test_privileged_values__noise_has_sigma_and_follows_the_seed(task: Task) -> None:
    origins = task.train.repeat(100)
    noisy = FUTURE.model_copy(update={"future_sigma": 2.0})
    noise = values(task, noisy, origins) - values(task, FUTURE, origins)
    assert noise.mean().item() == pytest.approx(0, abs=0.1)
    assert noise.std().item() == pytest.approx(2, abs=0.1)
    assert torch.equal(values(task, noisy, origins), values(task, noisy, origins))
    assert not torch.equal(values(task, noisy, origins, seed=1), values(task, noisy, origins))


def test_privileged_values__minutes_and_auxiliary_stand_in_order_of_time(task: Task) -> None:
    origin = int(task.train[5])
    found = values(task, PAST, task.train[5:6])[0]
    minutes = found[: 3 * READINGS] * task.scalers.minutes.std[0] + task.scalers.minutes.mean[0]
    torch.testing.assert_close(minutes, task.panel.minutes[origin - 3 : origin].flatten())
    scaler = task.scalers.auxiliary
    auxiliary = found[3 * READINGS :].reshape(LOOKBACK, 2) * torch.tensor(scaler.std) + torch.tensor(scaler.mean)
    torch.testing.assert_close(auxiliary, task.panel.auxiliary[origin - LOOKBACK : origin])


def test_privileged_values__minutes_and_auxiliary_end_before_the_origin(task: Task) -> None:
    origin = task.train[5:6]
    before = values(task, PAST, origin)
    task.panel.minutes[origin:] += 9.0
    task.panel.auxiliary[origin:] += 9.0
    assert torch.equal(values(task, PAST, origin), before)
    task.panel.minutes[origin - 1] += 9.0
    task.panel.auxiliary[origin - 1] += 9.0
    assert (values(task, PAST, origin) != before).sum() == READINGS + 2


def test_privileged_values__a_missing_value_is_its_mean(task: Task) -> None:
    origin = int(task.train[5])
    task.panel.auxiliary[origin - 1, 0] = torch.nan
    task.panel.minutes[origin - 1, 0] = torch.nan
    found = values(task, PAST, task.train[5:6])[0]
    assert (found == 0).nonzero().flatten().tolist() == [2 * READINGS, 3 * READINGS + 2 * (LOOKBACK - 1)]


def test_privileged_values__a_teacher_may_see_nothing(task: Task) -> None:
    recipe = small_recipe(views=NOTHING)
    teacher = Forecaster(task.shape(recipe, teacher=True), task.scalers, 2)
    logits = task.teacher_logits(teacher, task.train, recipe, torch.Generator())
    assert torch.equal(logits, teacher(*task.student_inputs(task.train)))


@pytest.mark.parametrize("count", [2, 3, 50])
def test_shuffle_windows__each_sees_another_one_of_the_part(count: int) -> None:
    origins = torch.arange(100, 100 + 3 * count, 3)
    shown = shuffle_windows(origins, seed=0)
    assert sorted(shown.tolist()) == origins.tolist()
    assert (shown != origins).all()
    assert torch.equal(shuffle_windows(origins, seed=0), shown)
    assert count < 4 or not torch.equal(shuffle_windows(origins, seed=1), shown)


@pytest.mark.parametrize("count", [0, 1])
def test_shuffle_windows__too_few_to_shuffle_stay(count: int) -> None:
    assert shuffle_windows(torch.arange(count), seed=0).tolist() == list(range(count))


def test_privileged_origins__stay_within_their_part(task: Task) -> None:
    recipe = small_recipe(views=FUTURE.model_copy(update={"placebo": True}))
    shown = task.privileged_origins(recipe, [task.train, task.validation], seed=0)
    assert shown is not None
    for part in (task.train, task.validation):
        assert sorted(shown[part].tolist()) == part.tolist()
    assert task.privileged_origins(small_recipe(views=FUTURE), [task.train], seed=0) is None


def test_teacher_logits__a_placebo_sees_its_own_past_and_anothers_privilege(task: Task) -> None:
    placebo = small_recipe(views=FUTURE.model_copy(update={"placebo": True}))
    teacher = Forecaster(task.shape(placebo, teacher=True), task.scalers, 2).eval()
    shown = task.privileged_origins(placebo, [task.train], seed=0)
    assert shown is not None
    found = task.teacher_logits(teacher, task.train, placebo, torch.Generator(), shown=shown)
    expected = teacher(*task.student_inputs(task.train), values(task, FUTURE, shown[task.train]))
    assert torch.equal(found, expected)
