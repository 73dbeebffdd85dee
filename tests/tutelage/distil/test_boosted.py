import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import dataset_of, small_recipe, synthetic_panel
from tutelage.distil.boosted import boosted_labels, train_boosted
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.plans import StudentPlan
from tutelage.distil.recipe import UNPRIVILEGED, Views
from tutelage.distil.soft_labels import label_losses
from tutelage.distil.students import train_students
from tutelage.errors import GapsError

FUTURE = UNPRIVILEGED.model_copy(update={"future_sigma": 0.3})


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([600]), train_hours=400, horizon=2)


def cross_entropy(dataset: WindowDataset, views: Views, origins: Tensor) -> float:
    recipe = small_recipe(views=views)
    teacher = train_boosted(dataset, recipe, seed=0, trees=40)
    return label_losses(boosted_labels(teacher, dataset, origins, recipe, seed=0), dataset).mean().item()


@pytest.mark.parametrize("part", ["train", "validation"])
def test_boosted_labels__privilege_foretells_what_the_past_does_not(dataset: WindowDataset, part: str) -> None:
    origins, uniform = getattr(dataset, part), np.log(len(dataset.bins))
    assert cross_entropy(dataset, FUTURE, origins) < 0.75 * uniform
    # Noise of 576 windows: no better than a uniform guess, in the training part too, and not much worse.
    assert 0.98 * uniform < cross_entropy(dataset, UNPRIVILEGED, origins) < 1.1 * uniform
    placebo = FUTURE.model_copy(update={"placebo": True})
    assert 0.98 * uniform < cross_entropy(dataset, placebo, origins) < 1.1 * uniform


def test_boosted_labels__are_distributions_by_window(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=FUTURE)
    teacher = train_boosted(dataset, recipe, seed=0, trees=10)
    labels = boosted_labels(teacher, dataset, dataset.train, recipe, seed=0)
    soft = labels.log_probabilities
    assert torch.equal(labels.origins, dataset.train)
    assert soft.shape == (len(dataset.train), dataset.horizon, len(dataset.bins))
    torch.testing.assert_close(soft.exp().sum(dim=-1), torch.ones(len(dataset.train), dataset.horizon))
    again = boosted_labels(teacher, dataset, dataset.train, recipe, seed=0)
    assert torch.equal(again.log_probabilities, soft)


def test_train_boosted__a_window_is_foretold_by_trees_that_have_not_seen_it(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=UNPRIVILEGED)
    before = train_boosted(dataset, recipe, seed=0, trees=10)
    origin = int(dataset.train[200])
    place = before.places[before.block_of[origin]]
    dataset.panel.observed[origin, 0] += 1000.0
    after = train_boosted(dataset, recipe, seed=0, trees=10).places[before.block_of[origin]]
    dataset.panel.observed[origin, 0] -= 1000.0
    rows = np.random.default_rng(0).normal(3, 2, (50, place.n_features_in_))
    assert before.block_of[dataset.validation].max() == -1
    assert sorted(set(before.block_of[dataset.train].tolist())) == [0, 1, 2, 3, 4]
    # The changed hour is a target of this block's windows, and a past hour of few others, in the same block.
    np.testing.assert_allclose(after.predict(rows), place.predict(rows))


def test_boosted_labels__teach_a_student(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=FUTURE)
    teacher = train_boosted(dataset, recipe, seed=0, trees=10)
    labels = boosted_labels(teacher, dataset, dataset.train, recipe, seed=0)
    _, progress = train_students(dataset, [labels], [StudentPlan(dropout=0.0)], recipe, seed=0)
    assert progress.history[-1]["train"][0] < progress.history[0]["train"][0]


def test_train_boosted__refuses_too_few_windows() -> None:
    small = dataset_of(synthetic_panel([60]), train_hours=20)
    with pytest.raises(GapsError, match="15 windows are too few for 5 blocks"):
        train_boosted(small, small_recipe(), seed=0)
