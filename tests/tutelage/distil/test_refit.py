from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import hours_span, random_labels, small_recipe, synthetic_panel, target_alone
from tutelage.data.windows import Panel, Parts
from tutelage.distil.dataset import WindowDataset, fit_on, make_dataset
from tutelage.distil.pipeline import train_teachers
from tutelage.distil.recipe import Recipe
from tutelage.distil.refit import exact_budget, refit_dataset, refit_student
from tutelage.distil.teachers import label_taught
from tutelage.model.kinds import Budget
from tutelage.model.networks import Forecaster
from tutelage.model.training import Progress

PARTS = Parts(train=hours_span(0, 200), validation=hours_span(200, 260), test=hours_span(260, 300))
SHAPE = {"lookback": 4, "horizon": 2}


def whole_of(panel: Panel, recipe: Recipe) -> WindowDataset:
    return refit_dataset(panel, PARTS, recipe, **SHAPE)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel([400])


@pytest.fixture(scope="module")
def whole(panel: Panel) -> WindowDataset:
    return whole_of(panel, small_recipe(bins=8))


def refit(
    dataset: WindowDataset, folder: Path, recipe: Recipe | None = None, *, taught: bool = True, epochs: int = 3
) -> Forecaster:
    """Refit the teachers for two epochs and then the student, or the twin."""
    recipe, soft = recipe or small_recipe(bins=8), None
    if taught:
        trained = train_teachers(
            dataset, recipe, seed=5, epochs={"teacher": 2}, checkpoints=lambda name: folder / f"{name}.safetensors"
        )
        soft = label_taught(trained.teachers, dataset, seed=5)
    return refit_student(dataset, recipe, soft=soft, epochs=epochs, seed=5, checkpoint=folder / "student.safetensors")


def weights(network: Forecaster) -> Tensor:
    return torch.cat([value.flatten() for value in network.parameters()])


def test_refit_dataset__learns_from_every_window_of_the_history(panel: Panel, whole: WindowDataset) -> None:
    evaluated = make_dataset(panel, PARTS, fit_on(panel, PARTS.train, bins=8), **SHAPE)
    assert len(whole.train) == 300 - 4 - 2 + 1
    assert set(evaluated.train.tolist()) < set(whole.train.tolist())
    assert torch.equal(whole.validation, evaluated.validation)
    target = panel.observed[:300, 0]
    assert whole.scalers.observed.mean[0] == pytest.approx(float(target.mean()), abs=1e-5)
    assert whole.bins.edges[-1] == pytest.approx(float(target.max()))


@pytest.mark.parametrize("unlabelled", [False, True])
def test_refit_dataset__windows_without_a_target_come_along_where_the_recipe_has_them(unlabelled: bool) -> None:
    views = {"future_sigma": None}
    whole = whole_of(synthetic_panel([400], missing=0.02), small_recipe(bins=8, unlabelled=unlabelled, views=views))
    assert (len(whole.unlabelled) > 0) is unlabelled
    assert int(whole.train.max()) > 260


def test_exact_budget__has_just_so_many_epochs() -> None:
    budget = exact_budget(Budget(epochs=4, patience=1, learning_rate=0.05), 7)
    assert budget == Budget(epochs=7, patience=7, learning_rate=0.05)


def test_refit_student__nothing_is_chosen_by_the_validation_part(whole: WindowDataset, tmp_path: Path) -> None:
    """It learns noise by heart: on hours that it hasn't seen, an earlier epoch is the best."""
    seen, unseen = whole.train[:20], torch.arange(304, 399)
    recipe = small_recipe(bins=8, student_training={"batch_size": 32, "learning_rate": 0.02, "dropout": 0.0})
    first = refit(replace(whole, validation=seen), tmp_path / "a", recipe, epochs=12)
    other = refit(replace(whole, validation=unseen), tmp_path / "b", recipe, epochs=12)
    assert torch.equal(weights(first), weights(other))


def test_refit_student__trains_for_exactly_the_epochs_that_were_chosen(whole: WindowDataset) -> None:
    """More than its budget has, and without patience: the number is that of the training that was evaluated."""
    counts: list[int] = []

    def count(progress: Progress) -> None:
        counts.append(progress.epoch)

    impatient = {"epochs": 4, "patience": 1, "batch_size": 32, "learning_rate": 0.1, "dropout": 0.0}
    recipe = small_recipe(bins=8, student_training=impatient)
    refit_student(whole, recipe, soft=None, epochs=7, seed=5, on_epoch=count)
    assert counts == [1, 2, 3, 4, 5, 6, 7]


def test_refit_student__the_twin_has_no_teacher(whole: WindowDataset, tmp_path: Path) -> None:
    twin = refit(whole, tmp_path / "twin", taught=False)
    by_truth_alone = refit(whole, tmp_path / "alone", small_recipe(bins=8, alpha=0.0))
    torch.testing.assert_close(weights(twin), weights(by_truth_alone))
    assert not torch.allclose(weights(twin), weights(refit(whole, tmp_path / "student")))


def test_refit_student__trusts_the_teacher_as_the_evaluated_student_did(whole: WindowDataset) -> None:
    soft = random_labels(whole)

    def student(gate: Tensor | None, alpha: float = 0.9) -> Tensor:
        recipe = small_recipe(bins=8, alpha=alpha)
        return weights(refit_student(whole, recipe, soft=soft, gate=gate, epochs=2, seed=5))

    taught, by_truth = student(None), student(None, alpha=0.0)
    torch.testing.assert_close(student(torch.ones(2)), taught)
    torch.testing.assert_close(student(torch.zeros(2)), by_truth)
    half = student(torch.tensor([0.0, 1.0]))
    assert not torch.allclose(half, taught)
    assert not torch.allclose(half, by_truth)


def test_refit_student__goes_on_from_its_checkpoint(whole: WindowDataset, tmp_path: Path) -> None:
    first = refit(whole, tmp_path)
    before = [(tmp_path / f"{name}.safetensors").stat().st_mtime_ns for name in ("teacher", "student")]
    again = refit(whole, tmp_path)
    assert torch.equal(weights(first), weights(again))
    assert [(tmp_path / f"{name}.safetensors").stat().st_mtime_ns for name in ("teacher", "student")] == before


def test_refit_student__a_recursive_one_goes_on_from_the_bins_of_all_the_history(tmp_path: Path) -> None:
    panel, recipe = target_alone(synthetic_panel([400])), small_recipe(bins=8, recursive=True)
    whole = whole_of(panel, recipe)
    evaluated = make_dataset(panel, PARTS, fit_on(panel, PARTS.train, bins=8), **SHAPE)
    student = refit(whole, tmp_path, recipe)
    assert student.config == whole.student_config(recipe) != evaluated.student_config(recipe)
    torch.testing.assert_close(student.centres, torch.tensor(student.config.centres))
