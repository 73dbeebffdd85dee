from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.core.builders import small_recipe, synthetic_panel, target_alone, task_of
from tutelage import distillation
from tutelage.distillation import Task, soft_labels, train_teacher
from tutelage.errors import SpecError
from tutelage.fit import Progress
from tutelage.heads import Bins
from tutelage.losses import hard_label_loss
from tutelage.networks import Forecaster
from tutelage.recipe import Budget, Recipe, Views
from tutelage.views import privileged_values
from tutelage.windows import Panel

NOTHING = Views(future_sigma=None, minutes_hours=0, auxiliary=False)
BUDGET = Budget(epochs=15, patience=15, batch_size=32, learning_rate=0.01, dropout=0.0)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([160]), train_hours=100)


@pytest.fixture(scope="module")
def teacher(task: Task) -> Forecaster:
    return train_teacher(task, small_recipe(), seed=0)[0]


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


def test_train_teacher__a_placebo_foretells_nothing() -> None:
    task = unforeseeable_task()
    views = NOTHING.model_copy(update={"auxiliary": True, "placebo": True})
    _, placebo = train_teacher(task, small_recipe(views=views, teacher_budget=BUDGET), seed=0)
    assert min(placebo.best_loss) > 0.95 * np.log(len(task.bins))


def test_soft_labels__of_a_placebo_are_what_it_said_in_training() -> None:
    task = unforeseeable_task()
    views = NOTHING.model_copy(update={"auxiliary": True, "placebo": True})
    recipe = small_recipe(views=views)
    teacher, _ = train_teacher(task, recipe, seed=0)
    shown = task.privileged_origins(recipe, [task.train, task.validation], seed=0)
    with torch.no_grad():
        logits = task.teacher_logits(teacher, task.train, recipe, torch.Generator(), shown=shown)
    found = soft_labels(teacher, task, task.train, recipe, seed=0)
    torch.testing.assert_close(found.exp(), logits.softmax(dim=-1).mean(dim=0))


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


def test_task__labels_are_the_bins_of_the_hours_ahead(task: Task) -> None:
    labels = task.labels(task.validation)
    edges = task.bins.edges[1:-1]
    for window, origin in enumerate(task.validation.tolist()):
        for lead in range(task.horizon):
            value = task.panel.observed[origin + lead, 0].item()
            assert labels[window, lead] == sum(value >= edge for edge in np.float32(edges))


def noises(task: Task, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, **how: object) -> list[float | None]:
    """The noise of the views, call by call of the teacher's training: five batches an epoch, then validation."""
    seen = []

    def noted(panel: Panel, origins: Tensor, views: Views, *rest: object, **options: object) -> Tensor:
        seen.append(views.after(1.0).future_sigma)
        return privileged_values(panel, origins, views, *rest, **options)

    monkeypatch.setattr(distillation, "privileged_values", noted)
    train_teacher(task, recipe, seed=0, **how)
    return seen


def test_train_teacher__noise_goes_to_its_end_over_the_epochs(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views(future_sigma=4.0, future_sigma_end=1.0)
    found = noises(task, small_recipe(views=views), monkeypatch)
    batches = len(task.train.split(32))
    expected = [[4.0] * batches + [1.0], [3.0] * batches + [1.0], [2.0] * batches + [1.0], [1.0] * batches + [1.0]]
    assert found == pytest.approx([sigma for epoch in expected for sigma in epoch])


def test_train_teacher__a_killed_run_goes_on_with_its_noise(task: Task, tmp_path: Path) -> None:
    budget = Budget(epochs=8, patience=8, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe = small_recipe(views=Views(future_sigma=4.0, future_sigma_end=1.0), teacher_budget=budget)
    whole, _ = train_teacher(task, recipe, seed=0)

    def kill(progress: Progress) -> None:
        if progress.epoch == 6:
            raise KeyboardInterrupt

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_teacher(task, recipe, seed=0, checkpoint=path, on_epoch=kill)
    resumed, _ = train_teacher(task, recipe, seed=0, checkpoint=path)
    assert torch.equal(resumed.last.weight, whole.last.weight)


def test_soft_labels__have_the_noise_of_the_schedules_end(task: Task, teacher: Forecaster) -> None:
    ended, plain = (
        small_recipe(views=views) for views in (Views(future_sigma=9, future_sigma_end=1), Views(future_sigma=1))
    )
    first, second = (soft_labels(teacher, task, task.train, recipe, seed=0) for recipe in (ended, plain))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 4.0), (0.5, 2.5), (1.0, 1.0), (1.5, 1.0)])
def test_views_after__golden(share: float, expected: float) -> None:
    assert Views(future_sigma=4.0, future_sigma_end=1.0).after(share).future_sigma == expected
    assert Views(future_sigma=4.0).after(share) == Views(future_sigma=4.0)


def test_shape__boosted_trees_have_none(task: Task) -> None:
    with pytest.raises(ValueError, match="boosted trees are no network"):
        task.shape(small_recipe(teacher="boosted"), teacher=True)
    assert task.shape(small_recipe(teacher="boosted"), teacher=False).architecture == "mlp"


def test_shape__of_a_rolled_student_holds_the_bins_means_and_a_teacher_is_not_rolled(task: Task) -> None:
    alone = replace(task, panel=target_alone(task.panel), bins=Bins((0.0, 2.0, 6.0)))
    recipe = small_recipe(rolled=True)
    shape, (mean, std) = alone.shape(recipe, teacher=False), alone.scale().tolist()
    assert shape.rolled
    assert shape.centres == pytest.approx([(1.0 - mean) / std, (4.0 - mean) / std])
    assert alone.shape(recipe.model_copy(update={"head": "point"}), teacher=False).centres == ()
    assert alone.shape(recipe, teacher=True) == alone.shape(small_recipe(), teacher=True)


def test_shape__a_rolled_student_has_no_columns_that_nobody_forecasts(task: Task) -> None:
    with pytest.raises(SpecError, match=r"recipe\.rolled: .* 1 more observed columns are beside it"):
        task.shape(small_recipe(rolled=True), teacher=False)
