"""What every loss against a teacher owes: zero where both agree, nothing for the teacher, members apart."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tutelage.distil.losses import (
    attention_loss,
    categorical_distillation_loss,
    feature_loss,
    multi_period_loss,
    multi_scale_loss,
    point_loss,
    quantile_label_loss,
    soft_label_loss,
    time_relation_loss,
    variable_relation_loss,
    window_distance_loss,
    window_relation_loss,
)

LEVELS = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
LABELS = torch.zeros(5, 8, dtype=torch.int64)


def distil(student: Tensor, teacher: Tensor) -> Tensor:
    alpha = torch.ones(len(student), dtype=torch.float64)
    return categorical_distillation_loss(student, teacher, LABELS, alpha=alpha, temperature=2.0)


def by_member(student: Tensor, teacher: Tensor) -> Tensor:
    temperature = torch.arange(1, len(student) + 1, dtype=torch.float64)
    return soft_label_loss(student, teacher, temperature=temperature)


def identity(x: Tensor) -> Tensor:
    return x


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[Loss, tuple[int, ...]]] = {
    "soft labels": (lambda s, t: soft_label_loss(s, t, temperature=2.0), (5, 8, 3)),
    "soft labels by member": (by_member, (5, 8, 3)),
    "distillation": (distil, (5, 8, 3)),
    "squared": (point_loss, (5, 8)),
    "smooth": (lambda s, t: point_loss(s, t, kind="smooth"), (5, 8)),
    "quantiles": (lambda s, t: quantile_label_loss(s, t, LEVELS), (5, 8, 3)),
    "features": (lambda s, t: feature_loss(s, t, identity), (5, 6)),
    "attention": (attention_loss, (5, 2, 4, 4)),
    "time": (time_relation_loss, (5, 8, 3)),
    "variables": (variable_relation_loss, (5, 8, 3)),
    "windows": (window_relation_loss, (5, 6)),
    "window distances": (window_distance_loss, (5, 6)),
    "scales": (multi_scale_loss, (5, 8)),
    "periods": (multi_period_loss, (5, 8)),
}


def random(members: int, shape: tuple[int, ...], *, seed: int) -> Tensor:
    return torch.randn(members, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=list(LOSSES))
def subject(request: pytest.FixtureRequest) -> tuple[Loss, tuple[int, ...]]:
    return LOSSES[request.param]


def test_loss__is_zero_where_the_student_is_the_teacher_and_above_it_elsewhere(
    subject: tuple[Loss, tuple[int, ...]],
) -> None:
    loss, shape = subject
    student, other = random(3, shape, seed=1), random(3, shape, seed=2)
    torch.testing.assert_close(loss(student, student.clone()), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-10)
    assert (loss(student, other) > 1e-3).all()


def test_loss__no_gradient_reaches_the_teacher(subject: tuple[Loss, tuple[int, ...]]) -> None:
    loss, shape = subject
    student, teacher = random(3, shape, seed=1).requires_grad_(), random(3, shape, seed=2).requires_grad_()
    loss(student, teacher).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.flatten(1).any(dim=1).all()


def test_loss__members_do_not_mix(subject: tuple[Loss, tuple[int, ...]]) -> None:
    loss, shape = subject
    student = random(3, shape, seed=1).requires_grad_()
    loss(student, random(3, shape, seed=2))[1].backward()
    assert student.grad is not None
    assert student.grad.flatten(1).any(dim=1).tolist() == [False, True, False]


def test_loss__one_teacher_teaches_all_members(subject: tuple[Loss, tuple[int, ...]]) -> None:
    loss, shape = subject
    student, teacher = random(3, shape, seed=1), random(1, shape, seed=2)
    torch.testing.assert_close(loss(student, teacher), loss(student, teacher.expand(3, *shape)))


def test_loss__has_a_gradient_where_the_student_is_the_teacher(subject: tuple[Loss, tuple[int, ...]]) -> None:
    loss, shape = subject
    student = random(2, shape, seed=1).requires_grad_()
    loss(student, student.detach().clone()).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
