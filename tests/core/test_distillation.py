from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.core.builders import small_recipe, synthetic_panel, task_of
from tutelage.distillation import Task, describe, soft_labels, train_pair, train_teacher
from tutelage.losses import hard_label_loss
from tutelage.networks import Forecaster
from tutelage.recipe import Budget, Views

NOTHING = Views(future_sigma=None, minutes_hours=0, auxiliary=False)
BUDGET = Budget(epochs=15, patience=15, batch_size=32, learning_rate=0.01, dropout=0.0)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([160]), train_hours=100)


@pytest.fixture(scope="module")
def teacher(task: Task) -> Forecaster:
    return train_teacher(task, small_recipe(), seed=0)[0]


def random_soft(task: Task, seed: int = 0) -> Tensor:
    shape = len(task.train), task.horizon, len(task.bins)
    return functional.log_softmax(2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def unforeseeable_task() -> Task:
    """The next hour is noise to a student; the teacher's minutes and its sensors foretell it."""
    panel = synthetic_panel([500])
    following = panel.observed[:, 0].roll(-1)
    panel.auxiliary[:, 1] = 10 * following
    panel.minutes[:] = following[:, None]
    return task_of(panel, train_hours=300, horizon=1)


@pytest.mark.parametrize(
    "views",
    [
        NOTHING.model_copy(update={"future_sigma": 0.3}),
        NOTHING.model_copy(update={"minutes_hours": 2}),
        NOTHING.model_copy(update={"auxiliary": True}),
    ],
    ids=["future", "minutes", "auxiliary"],
)
def test_train_teacher__privilege_foretells_what_the_past_does_not(views: Views) -> None:
    task = unforeseeable_task()
    _, blind = train_teacher(task, small_recipe(views=NOTHING, teacher_budget=BUDGET), seed=0)
    _, privileged = train_teacher(task, small_recipe(views=views, teacher_budget=BUDGET), seed=0)
    assert max(privileged.best_loss) < 0.8 * min(blind.best_loss)
    assert min(blind.best_loss) > 0.95 * np.log(len(task.bins))  # no better than a uniform guess


def test_train_teacher__follows_the_seed(task: Task, teacher: Forecaster) -> None:
    again, _ = train_teacher(task, small_recipe(), seed=0)
    other, _ = train_teacher(task, small_recipe(), seed=1)
    assert torch.equal(again.last.weight, teacher.last.weight)
    assert not torch.equal(other.last.weight, teacher.last.weight)


def test_train_teacher__its_validation_loss_uses_one_fixed_draw_of_noise(task: Task) -> None:
    recipe = small_recipe()
    teacher, progress = train_teacher(task, recipe, seed=5)
    with torch.no_grad():
        draw = torch.Generator().manual_seed(5)
        logits = task.teacher_logits(teacher, task.validation, recipe, draw)
    assert hard_label_loss(logits, task.labels(task.validation)).tolist() == progress.best_loss


def test_soft_labels__average_probabilities_over_members_and_draws(task: Task, teacher: Forecaster) -> None:
    recipe = small_recipe(draws=3)
    soft = soft_labels(teacher, task, task.train, recipe, seed=4)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        draws = [task.teacher_logits(teacher, task.train, recipe, generator).softmax(dim=-1) for _ in range(3)]
    expected = sum(member for draw in draws for member in draw) / (3 * 2)
    torch.testing.assert_close(soft.exp(), expected)
    torch.testing.assert_close(soft.exp().sum(dim=-1), torch.ones(len(task.train), task.horizon))


def test_soft_labels__follow_the_seed(task: Task, teacher: Forecaster) -> None:
    first, again, other = (soft_labels(teacher, task, task.train, small_recipe(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(again, first)
    assert not torch.allclose(other, first)


def test_soft_labels__in_chunks_keep_the_order_of_the_windows(task: Task) -> None:
    recipe = small_recipe(views=NOTHING)
    teacher, _ = train_teacher(task, recipe, seed=0)
    whole, parts = (soft_labels(teacher, task, task.train, recipe, seed=0, chunk=chunk) for chunk in (1024, 7))
    torch.testing.assert_close(parts, whole)


def test_train_pair__student_and_twin_differ_in_alpha_alone(task: Task) -> None:
    student, twin, progress = train_pair(task, random_soft(task), small_recipe(alpha=0.0), seed=0)
    for name, weight in student.named_parameters():
        assert torch.equal(weight, twin.get_parameter(name)), name
    for epoch in progress.history:
        assert epoch["train"][0] == epoch["train"][1]
        assert epoch["validation"][0] == epoch["validation"][1]


def test_train_pair__the_teacher_moves_the_student_and_not_the_twin(task: Task) -> None:
    first, other = (train_pair(task, random_soft(task, seed), small_recipe(), seed=0) for seed in (0, 1))
    assert not torch.allclose(first[0].last.weight, other[0].last.weight)
    torch.testing.assert_close(first[1].last.weight, other[1].last.weight)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_train_pair__a_student_of_alpha_one_learns_what_its_teacher_says(task: Task, temperature: float) -> None:
    said = random_soft(task)[0, 0]  # of every hour the same
    soft = said.expand(len(task.train), task.horizon, -1)
    recipe = small_recipe(alpha=1.0, temperature=temperature, student_budget=BUDGET)
    _, _, progress = train_pair(task, soft, recipe, seed=0)
    assert progress.history[-1]["train"][0] < 0.1 * progress.history[0]["train"][0]


def test_train_pair__soft_labels_belong_to_their_windows(task: Task) -> None:
    recipe = small_recipe(student_budget=BUDGET.model_copy(update={"batch_size": 1024, "epochs": 3}))
    soft, order = random_soft(task), torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    shuffled = replace(task, train=task.train[order])
    expected, _, _ = train_pair(task, soft, recipe, seed=0)
    together, _, _ = train_pair(shuffled, soft[order], recipe, seed=0)
    mixed_up, _, _ = train_pair(shuffled, soft, recipe, seed=0)
    torch.testing.assert_close(together.last.weight, expected.last.weight, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(mixed_up.last.weight, expected.last.weight, rtol=1e-3, atol=1e-4)


def test_train_pair__teacher_to_student_end_to_end(task: Task, teacher: Forecaster) -> None:
    recipe = small_recipe()
    soft = soft_labels(teacher, task, task.train, recipe, seed=0)
    student, twin, progress = train_pair(task, soft, recipe, seed=0)
    assert len(progress.history) == recipe.student_budget.epochs
    for network, best in zip((student, twin), progress.best_loss, strict=True):
        assert network.shape == task.shape(recipe, teacher=False)
        assert network.shape.privileged == 0
        with torch.no_grad():
            logits = network.eval()(*task.student_inputs(task.validation))
        assert hard_label_loss(logits, task.labels(task.validation)).item() == pytest.approx(best, rel=1e-5)


def test_task__labels_are_the_bins_of_the_hours_ahead(task: Task) -> None:
    labels = task.labels(task.validation)
    edges = task.bins.edges[1:-1]
    for window, origin in enumerate(task.validation.tolist()):
        for lead in range(task.horizon):
            value = task.panel.observed[origin + lead, 0].item()
            assert labels[window, lead] == sum(value >= edge for edge in np.float32(edges))


def test_describe__holds_all_that_rebuilds_the_network(task: Task, teacher: Forecaster) -> None:
    told = describe(teacher, task.scalers)
    assert (told["members"], told["shape"]["width"], told["shape"]["bins"]) == (2, 16, len(task.bins))
    assert told["scalers"]["observed"]["mean"] == task.scalers.observed.mean
