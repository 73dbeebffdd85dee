"""The losses of distillation.

All work on logits of shape (members, batch, horizon, bins), without a unit, and return one value a member: networks
that are trained side by side don't mix.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

Logits = Float[Tensor, "members batch horizon bins"]
TeacherLogits = Float[Tensor, "#members batch horizon bins"]
"""One teacher for all students, or one each."""
PerMember = Float[Tensor, " members"]


def soft_label_loss(student: Logits, teacher: TeacherLogits, *, temperature: float) -> PerMember:
    """Mean KL divergence from the teacher's softened distribution to the student's, times T².

    The teacher is detached, and may have one member for all students.

    Raises ValueError where temperature <= 0.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.1.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} is not above 0")
    wanted = functional.log_softmax(teacher.detach() / temperature, dim=-1)
    given = functional.log_softmax(student / temperature, dim=-1)
    divergence = (wanted.exp() * (wanted - given)).sum(dim=-1)
    return temperature**2 * divergence.mean(dim=(1, 2))


def hard_label_loss(student: Logits, labels: Int64[Tensor, "batch horizon"]) -> PerMember:
    """Mean cross-entropy against the bin that came true."""
    log_probability = functional.log_softmax(student, dim=-1)
    index = labels[None, :, :, None].expand(student.shape[0], -1, -1, 1)
    return -log_probability.gather(-1, index).squeeze(-1).mean(dim=(1, 2))


def distillation_loss(
    student: Logits,
    teacher: TeacherLogits,
    labels: Int64[Tensor, "batch horizon"],
    *,
    alpha: PerMember,
    temperature: float,
) -> PerMember:
    """α · T² · KL(teacher ‖ student) at temperature T, plus (1 − α) · CE at temperature 1.

    `alpha` holds one weight a member: a member with α = 0 is a twin, taught by the truth alone.
    """
    soft = soft_label_loss(student, teacher, temperature=temperature)
    hard = hard_label_loss(student, labels)
    return torch.where(alpha > 0, alpha * soft, 0.0) + torch.where(alpha < 1, (1 - alpha) * hard, 0.0)
