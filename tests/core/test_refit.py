from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.core.builders import hours_span, small_recipe, synthetic_panel, target_alone, task_of
from tutelage.distillation import Task
from tutelage.fit import Progress
from tutelage.networks import Forecaster
from tutelage.recipe import Recipe
from tutelage.refit import refit_student, refit_teacher, whole_task
from tutelage.teachers import Chair, Teacher, chairs_of, teach_taught

HISTORY = hours_span(0, 300)


@pytest.fixture(scope="module")
def judged() -> Task:
    return task_of(synthetic_panel([400]), train_hours=200)


def refit(
    task: Task, folder: Path, recipe: Recipe | None = None, *, taught: bool = True, epochs: int = 3
) -> Forecaster:
    recipe, soft = recipe or small_recipe(), None
    if taught:
        teachers: dict[Chair, Teacher] = {
            chair: refit_teacher(task, chair, epochs=2, seed=5, checkpoint=folder / f"{chair.name}.safetensors")
            for chair in chairs_of(recipe, task.horizon)
        }
        soft = teach_taught(teachers, task, seed=5)
    return refit_student(task, recipe, soft=soft, epochs=epochs, seed=5, checkpoint=folder / "student.safetensors")


def weights(network: Forecaster) -> Tensor:
    return torch.cat([value.flatten() for value in network.parameters()])


def test_whole_task__learns_from_every_window_of_the_history(judged: Task) -> None:
    whole = whole_task(judged, HISTORY, bins=8)
    assert len(whole.train) == 300 - 4 - 2 + 1
    assert set(judged.train.tolist()) < set(whole.train.tolist())
    target = judged.panel.observed[:300, 0]
    assert whole.scalers.observed.mean[0] == pytest.approx(float(target.mean()), abs=1e-5)
    assert whole.bins.edges[-1] == pytest.approx(float(target.max()))


def test_refit_student__nothing_is_chosen_by_the_validation_part(judged: Task, tmp_path: Path) -> None:
    """It learns noise by heart: on hours that it hasn't seen, some earlier epoch is the best."""
    whole = whole_task(judged, HISTORY, bins=8)
    seen, unseen = whole.train[:20], whole.validation[whole.validation >= 304]
    recipe = small_recipe(student_budget={"batch_size": 32, "learning_rate": 0.02, "dropout": 0.0})
    first = refit(replace(whole, validation=seen), tmp_path / "a", recipe, epochs=12)
    other = refit(replace(whole, validation=unseen), tmp_path / "b", recipe, epochs=12)
    assert torch.equal(weights(first), weights(other))


def test_refit_student__trains_for_exactly_the_epochs_that_were_chosen(judged: Task, tmp_path: Path) -> None:
    """More than its budget has, and without patience: the count is the judged training's own."""
    counts: list[int] = []

    def count(progress: Progress) -> None:
        counts.append(progress.epoch)

    impatient = {"epochs": 4, "patience": 1, "batch_size": 32, "learning_rate": 0.1, "dropout": 0.0}
    refit_student(
        whole_task(judged, HISTORY, bins=8),
        small_recipe(student_budget=impatient),
        soft=None,
        epochs=7,
        seed=5,
        checkpoint=tmp_path / "student",
        on_epoch=count,
    )
    assert counts == [1, 2, 3, 4, 5, 6, 7]


def test_refit_student__the_twin_has_no_teacher(judged: Task, tmp_path: Path) -> None:
    whole = whole_task(judged, HISTORY, bins=8)
    twin = refit(whole, tmp_path / "twin", taught=False)
    by_truth_alone = refit(whole, tmp_path / "alone", small_recipe(alpha=0.0))
    torch.testing.assert_close(weights(twin), weights(by_truth_alone))
    assert not torch.allclose(weights(twin), weights(refit(whole, tmp_path / "student")))


def test_refit_student__trusts_the_teacher_as_the_judged_one_did(judged: Task, tmp_path: Path) -> None:
    whole = whole_task(judged, HISTORY, bins=8)
    soft = torch.randn(len(whole.train), 2, 8, generator=torch.Generator().manual_seed(0)).log_softmax(dim=-1)

    def student(name: str, gate: Tensor | None, recipe: Recipe) -> Tensor:
        checkpoint = tmp_path / f"{name}.safetensors"
        return weights(refit_student(whole, recipe, soft=soft, gate=gate, epochs=2, seed=5, checkpoint=checkpoint))

    taught, by_truth = student("taught", None, small_recipe()), student("alone", None, small_recipe(alpha=0.0))
    torch.testing.assert_close(student("open", torch.ones(2), small_recipe()), taught)
    torch.testing.assert_close(student("shut", torch.zeros(2), small_recipe()), by_truth)
    half = student("half", torch.tensor([0.0, 1.0]), small_recipe())
    assert not torch.allclose(half, taught)
    assert not torch.allclose(half, by_truth)


def test_refit_student__goes_on_from_its_checkpoint(judged: Task, tmp_path: Path) -> None:
    whole = whole_task(judged, HISTORY, bins=8)
    first = refit(whole, tmp_path)
    before = (tmp_path / "teacher.safetensors").stat().st_mtime_ns
    again = refit(whole, tmp_path)
    assert torch.equal(weights(first), weights(again))
    assert (tmp_path / "teacher.safetensors").stat().st_mtime_ns == before


def test_refit_student__a_rolled_one_goes_on_from_the_bins_of_all_the_history(tmp_path: Path) -> None:
    alone = task_of(target_alone(synthetic_panel([400])), train_hours=200)
    whole, recipe = whole_task(alone, HISTORY, bins=8), small_recipe(rolled=True)
    found = refit(whole, tmp_path, recipe)
    assert found.shape == whole.shape(recipe, teacher=False) != alone.shape(recipe, teacher=False)
    torch.testing.assert_close(found.centres, torch.tensor(found.shape.centres))
