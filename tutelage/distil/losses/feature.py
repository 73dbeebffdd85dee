"""Losses on hidden states and attention maps."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

PerMember = Float[Tensor, " members"]


def feature_loss(
    student: Float[Tensor, "members batch student_features"],
    teacher: Float[Tensor, "#members batch teacher_features"],
    projection: Callable[[Tensor], Tensor],
) -> PerMember:
    """SmoothL1 between the student's hidden state, projected to the teacher's width, and the teacher's.

    `projection` is trained with the student, by member (a `MemberLinear`), and not exported.

    Source: FitNets, Romero et al. 2015, arXiv:1412.6550, eq. 3; SmoothL1 as TimeKD, arXiv:2505.02138.
    """
    projected = projection(student)
    target = teacher.detach().expand(projected.shape[0], -1, -1)
    return functional.smooth_l1_loss(projected, target, reduction="none").mean(dim=(1, 2))


def attention_loss(
    student: Float[Tensor, "members batch student_heads queries keys"],
    teacher: Float[Tensor, "#members batch teacher_heads queries keys"],
) -> PerMember:
    """SmoothL1 between attention maps, each averaged over its heads, whose numbers may differ.

    Source: TimeKD, arXiv:2505.02138, correlation distillation.
    """
    student_map, teacher_map = student.mean(dim=2), teacher.detach().mean(dim=2)
    return functional.smooth_l1_loss(student_map, teacher_map.expand_as(student_map), reduction="none").mean(
        dim=(1, 2, 3)
    )
