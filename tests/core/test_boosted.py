import numpy as np
import pytest
import torch

from tests.core.builders import small_recipe, synthetic_panel, task_of
from tutelage.boosted import boosted_soft_labels, train_boosted
from tutelage.distillation import Task
from tutelage.errors import DataError
from tutelage.recipe import StudentPlan, Views
from tutelage.students import train_students

NOTHING = Views(future_sigma=None, minutes_hours=0, auxiliary=False)
FUTURE = NOTHING.model_copy(update={"future_sigma": 0.3})


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([600]), train_hours=400, horizon=2)


def cross_entropy(task: Task, views: Views, origins: torch.Tensor, **changes: object) -> float:
    recipe = small_recipe(views=views, **changes)
    teacher = train_boosted(task, recipe, seed=0, trees=40)
    soft = boosted_soft_labels(teacher, task, origins, recipe, seed=0)
    return -soft.gather(-1, task.labels(origins).unsqueeze(-1)).mean().item()


@pytest.mark.parametrize("part", ["train", "validation"])
def test_boosted__privilege_foretells_what_the_past_does_not(task: Task, part: str) -> None:
    origins, blind = getattr(task, part), np.log(len(task.bins))
    assert cross_entropy(task, FUTURE, origins) < 0.75 * blind
    # Noise of 576 windows: no better than a uniform guess, in the training part too, and not much worse.
    assert 0.98 * blind < cross_entropy(task, NOTHING, origins) < 1.1 * blind
    placebo = FUTURE.model_copy(update={"placebo": True})
    assert 0.98 * blind < cross_entropy(task, placebo, origins) < 1.1 * blind


def test_boosted_soft_labels__are_distributions_by_window(task: Task) -> None:
    recipe = small_recipe(views=FUTURE)
    teacher = train_boosted(task, recipe, seed=0, trees=10)
    soft = boosted_soft_labels(teacher, task, task.train, recipe, seed=0)
    assert soft.shape == (len(task.train), task.horizon, len(task.bins))
    torch.testing.assert_close(soft.exp().sum(dim=-1), torch.ones(len(task.train), task.horizon))
    assert torch.equal(boosted_soft_labels(teacher, task, task.train, recipe, seed=0), soft)


def test_train_boosted__a_window_is_foretold_by_trees_that_have_not_seen_it(task: Task) -> None:
    recipe = small_recipe(views=NOTHING)
    before = train_boosted(task, recipe, seed=0, trees=10)
    origin = int(task.train[200])
    place = before.places[before.block_of[origin]]
    task.panel.observed[origin, 0] += 1000.0
    after = train_boosted(task, recipe, seed=0, trees=10).places[before.block_of[origin]]
    task.panel.observed[origin, 0] -= 1000.0
    rows = np.random.default_rng(0).normal(3, 2, (50, place.n_features_in_))
    assert before.block_of[task.validation].max() == -1
    assert sorted(set(before.block_of[task.train].tolist())) == [0, 1, 2, 3, 4]
    # The changed hour is a target of this block's windows, and a past hour of few others, in the same block.
    np.testing.assert_allclose(after.predict(rows), place.predict(rows))


def test_boosted_soft_labels__teach_a_student(task: Task) -> None:
    recipe = small_recipe(views=FUTURE)
    teacher = train_boosted(task, recipe, seed=0, trees=10)
    soft = boosted_soft_labels(teacher, task, task.train, recipe, seed=0)
    _, progress = train_students(task, soft[None], [StudentPlan(dropout=0.0)], recipe, seed=0)
    assert progress.history[-1]["train"][0] < progress.history[0]["train"][0]


def test_train_boosted__refuses_too_few_windows() -> None:
    small = task_of(synthetic_panel([60]), train_hours=20)
    with pytest.raises(DataError, match="15 windows are too few for 5 blocks"):
        train_boosted(small, small_recipe(), seed=0)
