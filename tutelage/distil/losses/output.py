"""Losses on a network's outputs: logits over bins, points, quantiles.

Each hour of the horizon may have its own weight. Weights are divided by their mean, so that they shift weight between
hours and keep the loss's size.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from tutelage.model.kinds import PointLoss

Logits = Float[Tensor, "members batch horizon bins"]
TeacherLogits = Float[Tensor, "#members batch horizon bins"]
PerMember = Float[Tensor, " members"]
Weights = Float[Tensor, " horizon"]
"""One weight per hour of the horizon, at least one of them above 0."""
Gate = Float[Tensor, "#members #batch #horizon"]
"""The factor on α, from 0 to 1, by window and by hour of the horizon."""
Labelled = Bool[Tensor, "batch horizon"]
"""Where the truth is known. Elsewhere it is any finite value, and only the teacher's labels count."""


def _mean(cells: Float[Tensor, "members batch horizon"], weights: Weights | None) -> PerMember:
    """The weighted mean over windows and hours."""
    return (cells if weights is None else cells * (weights / weights.mean())).mean(dim=(1, 2))


def _softened(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Log-probabilities at a temperature."""
    if isinstance(temperature, Tensor):
        logits = logits / temperature.view(-1, 1, 1, 1)
    elif temperature != 1:
        logits = logits / temperature
    return functional.log_softmax(logits, dim=-1)


def _soft_cells(
    student: Logits, teacher: TeacherLogits, temperature: float | PerMember
) -> Float[Tensor, "members batch horizon"]:
    """KL · T²; `student` are log-probabilities at that temperature."""
    target = _softened(teacher.detach(), temperature)
    probability = target.exp()
    # Two sums, not one over the difference: the first has the teacher's size, which is small where students share it.
    divergence = (probability * target).sum(dim=-1) - (probability * student).sum(dim=-1)
    return divergence * (temperature.view(-1, 1, 1) if isinstance(temperature, Tensor) else temperature) ** 2


def _hard_cells(student: Logits, labels: Int64[Tensor, "batch horizon"]) -> Float[Tensor, "members batch horizon"]:
    """Cross-entropy; `student` are log-probabilities."""
    index = labels[None, :, :, None].expand(student.shape[0], -1, -1, 1)
    return -student.gather(-1, index).squeeze(-1)


def _mixed(
    soft: Float[Tensor, "members batch horizon"],
    hard: Float[Tensor, "members batch horizon"],
    alpha: PerMember,
    weights: Weights | None,
    gate: Gate | None,
    labelled: Labelled | None,
) -> PerMember:
    """The weighted mean of α · soft + (1 − α) · hard, with α multiplied by the gate cell by cell."""
    if labelled is not None:
        hard = torch.where(labelled, hard, 0.0)
    trust = alpha.view(-1, 1, 1) * (1.0 if gate is None else gate)
    # A term with weight 0 is left out, not multiplied by 0: an infinite loss times 0 would be NaN.
    return _mean(torch.where(trust > 0, trust * soft, 0.0) + torch.where(trust < 1, (1 - trust) * hard, 0.0), weights)


def _check(temperature: float | PerMember) -> None:
    # A tensor's values are not checked: on a GPU that would make the host wait at every step.
    if not isinstance(temperature, Tensor) and temperature <= 0:
        raise ValueError(f"temperature {temperature} is not above 0")


def soft_label_loss(
    student: Logits, teacher: TeacherLogits, *, temperature: float | PerMember, weights: Weights | None = None
) -> PerMember:
    """Mean KL divergence from the teacher's softened distribution to the student's, times T².

    `temperature` is one number, or one for each member, above 0. The logits have no unit.

    Raises ValueError where temperature is a number <= 0.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.1.
    """
    _check(temperature)
    return _mean(_soft_cells(_softened(student, temperature), teacher, temperature), weights)


def hard_label_loss(
    student: Logits, labels: Int64[Tensor, "batch horizon"], *, weights: Weights | None = None
) -> PerMember:
    """Mean cross-entropy against the bins of the actual values."""
    return _mean(_hard_cells(_softened(student, 1), labels), weights)


def categorical_distillation_loss(
    student: Logits,
    teacher: TeacherLogits,
    labels: Int64[Tensor, "batch horizon"],
    *,
    alpha: PerMember,
    temperature: float | PerMember,
    weights: Weights | None = None,
    gate: Gate | None = None,
    labelled: Labelled | None = None,
) -> PerMember:
    """α · T² · KL(teacher ‖ student) at temperature T, plus (1 − α) · CE at temperature 1.

    `alpha` holds one weight per member; a member with α = 0 is a twin, trained only on the truth. A `gate` multiplies
    α cell by cell: where it is 0 only the truth counts. Where `labelled` is false the truth does not count.

    Raises ValueError where temperature is a number <= 0.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    _check(temperature)
    plain = _softened(student, 1)
    is_plain = not isinstance(temperature, Tensor) and temperature == 1
    soft = _soft_cells(plain if is_plain else _softened(student, temperature), teacher, temperature)
    return _mixed(soft, _hard_cells(plain, labels), alpha, weights, gate, labelled)


Points = Float[Tensor, "members batch horizon"]
TeacherPoints = Float[Tensor, "#members batch horizon"]


def _point_cells(student: Points, target: TeacherPoints, kind: PointLoss) -> Points:
    measure = functional.mse_loss if kind == "squared" else functional.smooth_l1_loss
    return measure(student, target.detach().expand_as(student), reduction="none")


def point_loss(
    student: Points, target: TeacherPoints, *, kind: PointLoss = "squared", weights: Weights | None = None
) -> PerMember:
    """Mean squared error, or SmoothL1 with β = 1, to a target: the teacher's points or the truth.

    Both have the same unit, preferably the target's standard deviation: SmoothL1 turns linear at 1.
    """
    return _mean(_point_cells(student, target, kind), weights)


def point_distillation_loss(
    student: Points,
    teacher: TeacherPoints,
    truth: Float[Tensor, "batch horizon"],
    *,
    alpha: PerMember,
    kind: PointLoss = "squared",
    weights: Weights | None = None,
    gate: Gate | None = None,
    labelled: Labelled | None = None,
) -> PerMember:
    """α · error to the teacher's points, plus (1 − α) · error to the truth."""
    soft, hard = _point_cells(student, teacher, kind), _point_cells(student, truth.unsqueeze(0), kind)
    return _mixed(soft, hard, alpha, weights, gate, labelled)


Quantiles = Float[Tensor, "members batch horizon levels"]
TeacherQuantiles = Float[Tensor, "#members batch horizon levels"]


def _pinball_cells(student: Quantiles, target: Tensor, levels: Float[Tensor, " levels"]) -> Points:
    error = target.detach() - student
    return torch.maximum(levels * error, (levels - 1) * error).mean(dim=-1)


def pinball_loss(
    student: Quantiles,
    truth: Float[Tensor, "batch horizon"],
    levels: Float[Tensor, " levels"],
    *,
    weights: Weights | None = None,
) -> PerMember:
    """Mean pinball loss of quantiles at `levels` against the truth, in the target's unit.

    Source: Koenker and Bassett 1978, Regression Quantiles.
    """
    return _mean(_pinball_cells(student, truth[None, :, :, None], levels), weights)


def quantile_label_loss(
    student: Quantiles, teacher: TeacherQuantiles, levels: Float[Tensor, " levels"], *, weights: Weights | None = None
) -> PerMember:
    """Mean pinball loss of the student's quantiles to the teacher's at the same levels, in the target's unit."""
    return _mean(_pinball_cells(student, teacher, levels), weights)


def quantile_distillation_loss(
    student: Quantiles,
    teacher: TeacherQuantiles,
    truth: Float[Tensor, "batch horizon"],
    levels: Float[Tensor, " levels"],
    *,
    alpha: PerMember,
    weights: Weights | None = None,
    gate: Gate | None = None,
    labelled: Labelled | None = None,
) -> PerMember:
    """α · pinball loss to the teacher's quantiles, plus (1 − α) · pinball loss to the truth."""
    soft = _pinball_cells(student, teacher, levels)
    return _mixed(soft, _pinball_cells(student, truth[None, :, :, None], levels), alpha, weights, gate, labelled)
