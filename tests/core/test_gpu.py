import warnings
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from tests.core.builders import small_recipe, synthetic_panel, task_of, task_to
from tutelage.distillation import Task, soft_labels, train_teacher
from tutelage.fit import choose_device
from tutelage.losses import distillation_loss
from tutelage.recipe import Budget, Recipe
from tutelage.students import train_pairs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([400]), train_hours=300)


def teach(task: Task, recipe: Recipe) -> object:
    return train_teacher(task, recipe, seed=0)


def distil(task: Task, recipe: Recipe) -> object:
    soft = torch.zeros(len(task.train), task.horizon, len(task.bins), device=task.train.device)
    return train_pairs(task, soft.log_softmax(dim=-1)[None], recipe, seed=0)


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
    expected = distillation_loss(student, teacher, labels, alpha=alpha, temperature=2.0)
    there = [tensor.to(CUDA) for tensor in (student, teacher, labels)]
    found = distillation_loss(*there, alpha=alpha.to(CUDA), temperature=2.0)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_distillation_loss__has_the_same_gradient_on_cuda() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 16, 4, 32, generator=generator) for _ in range(2))
    labels, alpha, gradients = torch.randint(32, (16, 4), generator=generator), torch.tensor([0.5]), []
    for device in (torch.device("cpu"), CUDA):
        logits = student.to(device).requires_grad_()
        loss = distillation_loss(logits, teacher.to(device), labels.to(device), alpha=alpha.to(device), temperature=2.0)
        gradients.append(torch.autograd.grad(loss.sum(), logits)[0].cpu())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("train", [teach, distil])
def test_training__a_step_makes_no_host_sync(task: Task, train: Callable[[Task, Recipe], object]) -> None:
    resident = task_to(task, CUDA)
    few, many = (
        small_recipe(teacher_budget=budget, student_budget=budget)
        for budget in (Budget(epochs=1, patience=1, batch_size=size, dropout=0.2) for size in (4096, 16))
    )
    train(resident, few)  # what a first call sets up is not counted
    assert host_syncs(lambda: train(resident, many)) == host_syncs(lambda: train(resident, few))


def test_train_pairs__on_cuda_ends_near_the_cpu(task: Task) -> None:
    budget = Budget(epochs=5, patience=5, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe = small_recipe(teacher_budget=budget, student_budget=budget)
    best = []
    for device in (torch.device("cpu"), choose_device("cuda")):
        place = task_to(task, device)
        teacher, _ = train_teacher(place, recipe, seed=0)
        soft = soft_labels(teacher, place, place.train, recipe, seed=0)
        _, progress = train_pairs(place, soft[None], recipe, seed=0)
        best.append(torch.tensor(progress.best_loss))
    torch.testing.assert_close(best[1], best[0], rtol=0.03, atol=0)  # bf16 against float32


def test_soft_labels__are_near_those_of_the_cpu(task: Task) -> None:
    teacher, _ = train_teacher(task, small_recipe(), seed=0)
    expected = soft_labels(teacher, task, task.train, small_recipe(), seed=0)
    resident = task_to(task, CUDA)
    found = soft_labels(teacher.to(CUDA), resident, resident.train, small_recipe(), seed=0)
    divergence = functional.kl_div(found.cpu(), expected, log_target=True, reduction="batchmean")
    assert divergence.abs().item() < 1e-3
