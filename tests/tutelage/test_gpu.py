import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.tutelage.builders import dataset_of, dataset_to, small_recipe, synthetic_panel, target_alone
from tests.tutelage.chronos import Family, write_chronos
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.ensemble import ensemble_labels, train_ensemble
from tutelage.distil.losses import categorical_distillation_loss
from tutelage.distil.pipeline import distil_students, label_parts, train_teachers
from tutelage.distil.plans import plan_student
from tutelage.distil.pretrained import load_chronos
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import uniform_labels
from tutelage.distil.students import train_students
from tutelage.forecasts import Contender
from tutelage.judge.verdict import find_gains, score_contenders
from tutelage.model.kinds import Budget
from tutelage.model.training import choose_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([600]), train_hours=300, validation_hours=100)


def teach(dataset: WindowDataset, recipe: Recipe) -> object:
    return train_ensemble(dataset, recipe, seed=0)


def distil(dataset: WindowDataset, recipe: Recipe) -> object:
    plan = plan_student(dataset, recipe, seed=0)
    return train_students(dataset, [uniform_labels(dataset)], [plan, plan.twin], recipe, seed=0)


def host_syncs(call: Callable[[], object]) -> int:
    """How often a call made the host wait for the device, as far as torch can tell."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def test_distillation_loss__is_the_same_on_cuda() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 64, 24, 32, generator=generator) for _ in range(2))
    labels = torch.randint(32, (64, 24), generator=generator)
    alpha = torch.tensor([0.9, 0.0])
    expected = categorical_distillation_loss(student, teacher, labels, alpha=alpha, temperature=2.0)
    there = [tensor.to(CUDA) for tensor in (student, teacher, labels)]
    loss = categorical_distillation_loss(*there, alpha=alpha.to(CUDA), temperature=2.0)
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_distillation_loss__has_the_same_gradient_on_cuda() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 16, 4, 32, generator=generator) for _ in range(2))
    labels, alpha, gradients = torch.randint(32, (16, 4), generator=generator), torch.tensor([0.5]), []
    for device in (torch.device("cpu"), CUDA):
        logits = student.to(device).requires_grad_()
        loss = categorical_distillation_loss(
            logits, teacher.to(device), labels.to(device), alpha=alpha.to(device), temperature=2.0
        )
        gradients.append(torch.autograd.grad(loss.sum(), logits)[0].cpu())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("train", [teach, distil])
def test_training__a_step_makes_no_host_sync(
    dataset: WindowDataset, train: Callable[[WindowDataset, Recipe], object]
) -> None:
    resident = dataset_to(dataset, CUDA)
    few, many = (
        small_recipe(teacher_training=budget, student_training=budget)
        for budget in (Budget(epochs=1, patience=1, batch_size=size, dropout=0.2) for size in (4096, 16))
    )
    train(resident, few)  # what a first call sets up is not counted
    assert host_syncs(lambda: train(resident, many)) == host_syncs(lambda: train(resident, few))


def test_distil_students__on_cuda_end_near_the_cpu(dataset: WindowDataset) -> None:
    budget = Budget(epochs=5, patience=5, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe = small_recipe(teacher_training=budget, student_training=budget, gate="none")
    best = []
    for device in (torch.device("cpu"), choose_device("cuda")):
        there = dataset_to(dataset, device)
        labels = label_parts(train_teachers(there, recipe, seed=0).teachers, there, seed=0)
        students = distil_students(there, {Contender.STUDENT: labels}, recipe, seed=0)
        best.append(torch.tensor(students.progress.best_loss))
    torch.testing.assert_close(best[1], best[0], rtol=0.03, atol=0)  # bf16 against float32


def test_ensemble_labels__are_near_those_of_the_cpu(dataset: WindowDataset) -> None:
    teacher, _ = train_ensemble(dataset, small_recipe(), seed=0)
    expected = ensemble_labels(teacher, dataset, dataset.train, small_recipe(), seed=0).log_probabilities
    resident = dataset_to(dataset, CUDA)
    labels = ensemble_labels(teacher.to(CUDA), resident, resident.train, small_recipe(), seed=0)
    divergence = functional.kl_div(labels.log_probabilities.cpu(), expected, log_target=True, reduction="batchmean")
    assert divergence.abs().item() < 1e-3


@pytest.mark.parametrize("gate", ["hours", "windows"])
def test_pipeline__goes_from_teachers_to_gains_on_cuda(dataset: WindowDataset, gate: str) -> None:
    resident, recipe = dataset_to(dataset, CUDA), small_recipe(gate=gate)
    labels = label_parts(train_teachers(resident, recipe, seed=0).teachers, resident, seed=0)
    students = distil_students(resident, {Contender.STUDENT: labels}, recipe, seed=0, replicates=2)
    scored = score_contenders(resident, students.networks, labels.test)
    assert scored[Contender.STUDENT].losses.shape == (2, len(dataset.test))
    assert len(find_gains(resident, scored).by_replicate) == 2


def test_pipeline__trees_teach_on_cuda(dataset: WindowDataset) -> None:
    resident, recipe = dataset_to(dataset, CUDA), small_recipe(kind="boosted")
    labels = label_parts(train_teachers(resident, recipe, seed=0).teachers, resident, seed=0)
    assert {part.log_probabilities.device.type for part in (labels.taught, labels.validation, labels.test)} == {"cuda"}


@pytest.mark.parametrize("family", ["bolt", "2"])
def test_load_chronos__forecasts_there_as_here(family: Family, tmp_path: Path) -> None:
    panel = target_alone(synthetic_panel([1000], missing=0.02))
    here = dataset_of(panel, train_hours=300, validation_hours=100, horizon=3)
    assert len(here.test) > 300, "more than one batch"
    model = write_chronos(tmp_path / "model", family)
    there = dataset_to(here, CUDA)
    on_cpu, on_cuda = (load_chronos(model, horizon=3)(each, each.test[:300]) for each in (here, there))
    torch.testing.assert_close(*(torch.from_numpy(each.quantiles) for each in (on_cpu, on_cuda)), rtol=1e-3, atol=1e-3)
