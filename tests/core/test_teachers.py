from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.core.builders import small_recipe, synthetic_panel, task_of
from tutelage.boosted import BoostedTeacher, boosted_soft_labels, train_boosted
from tutelage.distillation import Task, soft_labels, teacher_states, train_teacher
from tutelage.fit import Progress
from tutelage.heads import QUANTILE_LEVELS
from tutelage.metrics import Forecasts
from tutelage.networks import Forecaster
from tutelage.recipe import BLIND, Kind, Recipe, Views
from tutelage.teachers import (
    Chair,
    Teacher,
    chairs_of,
    judged,
    labels_of,
    quantile_soft_labels,
    shortened,
    splice,
    states_taught,
    teach,
    teach_taught,
    train_any,
)

PAST = Views(future_sigma=None, minutes_hours=2, auxiliary=True)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([300]), train_hours=200, horizon=4)


def flat_forecast(task: Task, origins: Tensor) -> Forecasts:
    """Of every hour uniform between 0 and 1, shifted by one for each hour ahead, and with quantiles out of order."""
    levels = np.array(QUANTILE_LEVELS)[::-1]
    quantiles = np.arange(task.horizon)[None, :, None] + np.broadcast_to(levels, (len(origins), 1, len(levels)))
    return Forecasts(quantiles.mean(axis=-1), quantiles)


def test_train_any__is_the_teacher_of_the_recipes_kind(task: Task) -> None:
    found, _ = train_any(task, small_recipe(), seed=3)
    expected, _ = train_teacher(task, small_recipe(), seed=3)
    assert isinstance(found, Forecaster)
    assert torch.equal(found.last.weight, expected.last.weight)
    labels = labels_of(found, task, task.validation, small_recipe(), seed=3)
    assert torch.equal(labels, soft_labels(expected, task, task.validation, small_recipe(), seed=3))


def test_train_any__trees_teach_as_networks_do(task: Task) -> None:
    recipe, told = small_recipe(teacher="boosted"), []
    found, progress = train_any(task, recipe, seed=3, on_epoch=told.append)
    assert isinstance(found, BoostedTeacher)
    expected = boosted_soft_labels(train_boosted(task, recipe, seed=3), task, task.train, recipe, seed=3)
    assert torch.equal(labels_of(found, task, task.train, recipe, seed=3), expected)
    assert told == [progress]
    assert progress.done
    losses = -expected.gather(-1, task.labels(task.train).unsqueeze(-1))
    assert progress.history[0]["train"] == pytest.approx([losses.mean().item()])
    assert progress.best_loss == progress.history[0]["validation"]


def test_quantile_soft_labels__golden(task: Task) -> None:
    ours = replace(task, bins=type(task.bins)((-1.0, 0.5, 1.25, 2.0, 9.0)))
    found = quantile_soft_labels(flat_forecast, ours, task.train[:3]).exp()
    # Uniform on [0, 1], [1, 2], [2, 3] and [3, 4]; beyond 0.01 and 0.99 all belongs to the bins there.
    expected = torch.tensor([[0.5, 0.5, 0, 0], [0, 0.25, 0.75, 0], [0, 0, 0, 1], [0, 0, 0, 1]]).expand(3, 4, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert labels_of(flat_forecast, ours, task.train, small_recipe(), seed=0).isfinite().all()


def test_judged__a_model_that_is_there_has_one_epoch(task: Task) -> None:
    progress = judged(flat_forecast, task, small_recipe(), seed=0)
    assert isinstance(progress, Progress)
    assert (progress.epoch, progress.done, progress.best_epoch) == (1, True, [1])
    assert progress.best_loss[0] > np.log(len(task.bins))  # it knows nothing of these values


def test_splice__the_shorter_teacher_speaks_for_its_hours() -> None:
    labels = [torch.full((2, hours, 3), float(hours)) for hours in (1, 3, 4)]
    assert splice(labels)[..., 0].tolist() == [[1.0, 3.0, 3.0, 4.0]] * 2
    assert splice(labels[2:]).equal(labels[2])


def trained(task: Task, recipe: Recipe) -> dict[Chair, Teacher]:
    chairs = chairs_of(recipe, task.horizon)
    return {chair: train_any(shortened(task, chair.horizon), chair.recipe, seed=0)[0] for chair in chairs}


@pytest.mark.parametrize("kind", ["mlp", "boosted"])
def test_teach__each_hour_is_told_by_the_shortest_teacher_that_reaches_it(task: Task, kind: Kind) -> None:
    recipe = small_recipe(teacher=kind, teacher_horizons=(1, 3))
    teachers = trained(task, recipe)
    assert [(chair.name, chair.horizon) for chair in teachers] == [("teacher-1h", 1), ("teacher-3h", 3), ("teacher", 4)]
    found = teach(teachers, task, task.validation, seed=0)
    for (chair, teacher), hours in zip(teachers.items(), (slice(0, 1), slice(1, 3), slice(3, 4)), strict=True):
        own = labels_of(teacher, shortened(task, chair.horizon), task.validation, recipe, seed=0)
        assert torch.equal(found[:, hours], own[:, hours])


def test_teach__one_teacher_alone_says_what_it_says(task: Task) -> None:
    recipe = small_recipe()
    teachers = trained(task, recipe)
    (teacher,) = teachers.values()
    found = teach(teachers, task, task.train, seed=0)
    assert torch.equal(found, labels_of(teacher, task, task.train, recipe, seed=0))


def test_teach__teachers_of_several_views_are_averaged_as_probabilities(task: Task) -> None:
    recipe = small_recipe(more_views=(PAST, BLIND), teacher_horizons=(2,))
    teachers = trained(task, recipe)
    assert [chair.name for chair in teachers] == [
        *("teacher-2h", "teacher"),
        *("teacher-2-2h", "teacher-2"),
        *("teacher-3-2h", "teacher-3"),
    ]
    found = teach(teachers, task, task.validation, seed=0).exp()
    for hours, horizon in ((slice(0, 2), 2), (slice(2, 4), 4)):
        own = [
            soft_labels(teacher, shortened(task, horizon), task.validation, chair.recipe, seed=0).exp()[:, hours]
            for chair, teacher in teachers.items()
            if chair.horizon == horizon and isinstance(teacher, Forecaster)
        ]
        assert [chair.recipe.views for chair in teachers if chair.horizon == horizon] == [Views(), PAST, BLIND]
        torch.testing.assert_close(found[:, hours], (own[0] + own[1] + own[2]) / 3)


def test_chairs_of__a_registered_model_is_one_teacher_and_equal_views_are_one() -> None:
    assert len(chairs_of(small_recipe(teacher_model="home-24h/3", more_views=(PAST, BLIND)), 24)) == 1
    assert len(chairs_of(small_recipe(more_views=(Views(), BLIND, BLIND)), 24)) == 2


def test_chairs_of__refuses_a_teacher_that_is_not_shorter() -> None:
    with pytest.raises(ValueError, match=r"teacher_horizons \(2, 4\) are not all below the horizon, 4 h"):
        chairs_of(small_recipe(teacher_horizons=(2, 4)), 4)


@pytest.mark.parametrize("placebo", [False, True])
def test_teach_taught__has_the_training_part_as_it_was_trained_on(task: Task, placebo: bool) -> None:
    recipe = small_recipe(views=PAST.model_copy(update={"placebo": placebo}))
    teacher, _ = train_teacher(task, recipe, seed=0)
    (chair,) = chairs_of(recipe, task.horizon)
    further = replace(task, train=task.train[:-9], unlabelled=task.train[-9:])
    found = teach_taught({chair: teacher}, further, seed=0)
    for part, rows in ((further.train, slice(None, -9)), (further.unlabelled, slice(-9, None))):
        assert torch.equal(found[rows], soft_labels(teacher, task, part, recipe, seed=0))
        held = teacher_states(teacher, task, part, recipe, seed=0).hidden
        assert torch.equal(states_taught(teacher, further, recipe, seed=0).hidden[:, rows], held)
