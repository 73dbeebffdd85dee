"""Losses on temporal patterns: on several scales, and on periods.

They compare paths of shape (members, batch, steps): a forecast's mean, or a feature over time. Both paths have the
same unit, preferably the target's standard deviation.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Path = Float[Tensor, "members batch steps"]
TeacherPath = Float[Tensor, "#members batch steps"]
PerMember = Float[Tensor, " members"]


def multi_scale_loss(student: Path, teacher: TeacherPath, *, scales: Sequence[int] = (2, 4, 8)) -> PerMember:
    """Mean squared difference of the paths averaged over blocks of each scale, mean over the scales.

    Steps at the end that fill no block are left out.

    Raises ValueError where a scale is below 1 or longer than the path.
    Source: TimeDistill, arXiv:2502.15016, multi-scale distillation.
    """
    steps = student.shape[-1]
    if not scales or min(scales) < 1 or max(scales) > steps:
        raise ValueError(f"scales {tuple(scales)} don't lie between 1 and the path's {steps} steps")
    difference = student - teacher.detach()
    # A block's mean is linear: the mean of the difference is the difference of the means.
    losses = [functional.avg_pool1d(difference, scale).square().mean(dim=(1, 2)) for scale in scales]
    return torch.stack(losses).mean(dim=0)


def _periods(path: Path, tau: float) -> Float[Tensor, "members batch frequencies"]:
    """Log-softmax over the amplitudes of all frequencies but 0."""
    return functional.log_softmax(torch.fft.rfft(path).abs()[..., 1:] / tau, dim=-1)


def multi_period_loss(student: Path, teacher: TeacherPath, *, tau: float = 0.5) -> PerMember:
    """KL divergence from the teacher's to the student's softmax over amplitudes at temperature τ, without frequency 0.

    Raises ValueError where tau <= 0 or the path has fewer than 4 steps: a single frequency gives no distribution.
    Source: TimeDistill, arXiv:2502.15016, multi-period distillation.
    """
    if tau <= 0:
        raise ValueError(f"tau {tau} is not above 0")
    if student.shape[-1] < 4:
        raise ValueError(f"a path of {student.shape[-1]} steps has fewer than two frequencies")
    teacher_periods, student_periods = _periods(teacher.detach(), tau), _periods(student, tau)
    return (teacher_periods.exp() * (teacher_periods - student_periods)).sum(dim=-1).mean(dim=1)
