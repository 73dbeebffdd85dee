"""Losses on similarities between time steps, between variables, and between the windows of a batch.

Student and teacher may have different widths: the losses compare square matrices of the same size.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

PerMember = Float[Tensor, " members"]


def _cosines(features: Float[Tensor, "members batch items features"]) -> Float[Tensor, "members batch items items"]:
    unit = functional.normalize(features, dim=-1)
    return unit @ unit.transpose(-1, -2)


def time_relation_loss(
    student: Float[Tensor, "members batch steps student_features"],
    teacher: Float[Tensor, "#members batch steps teacher_features"],
) -> PerMember:
    """Mean squared difference of the cosine similarities between the time steps of a window.

    Source: pair-wise distillation, Liu et al. 2019, arXiv:1903.04197, with time steps in place of pixels.
    """
    return (_cosines(student) - _cosines(teacher.detach())).square().mean(dim=(1, 2, 3))


def variable_relation_loss(
    student: Float[Tensor, "members batch student_steps variables"],
    teacher: Float[Tensor, "#members batch teacher_steps variables"],
) -> PerMember:
    """Mean squared difference of the cosine similarities between the variables of a window."""
    return time_relation_loss(student.transpose(-1, -2), teacher.transpose(-1, -2))


def _similarities(features: Float[Tensor, "members batch features"]) -> Float[Tensor, "members batch batch"]:
    """The windows' inner products, each row normalised to length 1."""
    return functional.normalize(features @ features.transpose(-1, -2), dim=-1)


def window_relation_loss(
    student: Float[Tensor, "members batch student_features"],
    teacher: Float[Tensor, "#members batch teacher_features"],
) -> PerMember:
    """Mean squared difference of the row-normalised similarities between the windows of a batch.

    Source: similarity-preserving distillation (SPKD), Tung and Mori 2019, arXiv:1907.09682, eq. 1-4.
    """
    return (_similarities(student) - _similarities(teacher.detach())).square().mean(dim=(1, 2))


def _distances(features: Float[Tensor, "members batch features"]) -> Float[Tensor, "members batch batch"]:
    """Euclidean distances between windows, divided by the mean distance between different windows."""
    squares = features.square().sum(dim=-1)
    squared = squares[:, :, None] + squares[:, None, :] - 2 * features @ features.transpose(-1, -2)
    apart = ~torch.eye(features.shape[1], dtype=torch.bool, device=features.device)
    # The root's gradient at 0 is infinite; a clamped value gets none.
    distance = torch.where(apart, squared.clamp(min=1e-12).sqrt(), 0.0)
    pairs = features.shape[1] * (features.shape[1] - 1)
    return distance / (distance.sum(dim=(1, 2), keepdim=True) / max(pairs, 1)).clamp(min=1e-6)


def window_distance_loss(
    student: Float[Tensor, "members batch student_features"],
    teacher: Float[Tensor, "#members batch teacher_features"],
) -> PerMember:
    """SmoothL1 between the relative distances of the windows of a batch.

    Source: relational distillation (RKD-D), Park et al. 2019, arXiv:1904.05068, eq. 5-8.
    """
    student_distances, teacher_distances = _distances(student), _distances(teacher.detach())
    target = teacher_distances.expand_as(student_distances)
    return functional.smooth_l1_loss(student_distances, target, reduction="none").mean(dim=(1, 2))
