"""Losses on what a network puts out: logits over bins, points, quantiles.

Each hour of the horizon may have a weight of its own; weights are taken relative to their mean, so that they move the
hours against each other and leave the loss's size alone.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from tutelage.recipe import PointLoss

Logits = Float[Tensor, "members batch horizon bins"]
TeacherLogits = Float[Tensor, "#members batch horizon bins"]
PerMember = Float[Tensor, " members"]
Weights = Float[Tensor, " horizon"]
"""One weight an hour of the horizon, at least one of them above 0."""
Gate = Float[Tensor, "#members #batch #horizon"]
"""How far the teacher is trusted, from 0 to 1, by window and by hour of the horizon."""
Labelled = Bool[Tensor, "batch horizon"]
"""Where the truth is known; elsewhere any finite value stands in its place, and the teacher alone teaches."""


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
    """KL · T²; the student comes as log-probabilities at that temperature."""
    wanted = _softened(teacher.detach(), temperature)
    probability = wanted.exp()
    # Two sums in place of one over the difference: the first is the teacher's alone, and small where it is one for all.
    divergence = (probability * wanted).sum(dim=-1) - (probability * student).sum(dim=-1)
    return divergence * (temperature.view(-1, 1, 1) if isinstance(temperature, Tensor) else temperature) ** 2


def _hard_cells(student: Logits, labels: Int64[Tensor, "batch horizon"]) -> Float[Tensor, "members batch horizon"]:
    """Cross-entropy; the student comes as log-probabilities."""
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
    """α · soft + (1 − α) · hard, α multiplied by the gate cell by cell; the weighted mean of it."""
    if labelled is not None:
        hard = torch.where(labelled, hard, 0.0)
    trust = alpha.view(-1, 1, 1) * (1.0 if gate is None else gate)
    # A side without weight is left out, not multiplied by 0: an infinite loss there must not become NaN.
    return _mean(torch.where(trust > 0, trust * soft, 0.0) + torch.where(trust < 1, (1 - trust) * hard, 0.0), weights)


def _check(temperature: float | PerMember) -> None:
    # A tensor is not looked into: on a GPU that would make the host wait at every step.
    if not isinstance(temperature, Tensor) and temperature <= 0:
        raise ValueError(f"temperature {temperature} is not above 0")


def soft_label_loss(
    student: Logits, teacher: TeacherLogits, *, temperature: float | PerMember, weights: Weights | None = None
) -> PerMember:
    """Mean KL divergence from the teacher's softened distribution to the student's, times T².

    `temperature` is one number, or one above 0 for each member. The logits have no unit.

    Raises ValueError where temperature is a number <= 0.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.1.
    """
    _check(temperature)
    return _mean(_soft_cells(_softened(student, temperature), teacher, temperature), weights)


def hard_label_loss(
    student: Logits, labels: Int64[Tensor, "batch horizon"], *, weights: Weights | None = None
) -> PerMember:
    """Mean cross-entropy against the bin that came true."""
    return _mean(_hard_cells(_softened(student, 1), labels), weights)


def distillation_loss(
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

    `alpha` holds one weight a member: a member with α = 0 is a twin, taught by the truth alone. Where a `gate` is
    given, α is multiplied by it cell by cell: where it is 0 the truth alone teaches. Where `labelled` is given and
    false, nothing is taught by the truth.

    Raises ValueError where temperature is a number <= 0.
    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    _check(temperature)
    plain = _softened(student, 1)
    one = not isinstance(temperature, Tensor) and temperature == 1
    soft = _soft_cells(plain if one else _softened(student, temperature), teacher, temperature)
    return _mixed(soft, _hard_cells(plain, labels), alpha, weights, gate, labelled)


Points = Float[Tensor, "members batch horizon"]
TeacherPoints = Float[Tensor, "#members batch horizon"]


def _point_cells(student: Points, target: TeacherPoints, kind: PointLoss) -> Points:
    measure = functional.mse_loss if kind == "squared" else functional.smooth_l1_loss
    return measure(student, target.detach().expand_as(student), reduction="none")


def point_loss(
    student: Points, target: TeacherPoints, *, kind: PointLoss = "squared", weights: Weights | None = None
) -> PerMember:
    """Mean squared difference, or SmoothL1 with its bend at 1, to a target: the teacher's points or the truth.

    Both have one unit, best the target's standard deviation: SmoothL1's bend stands at 1 of it.
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
    """α · difference to the teacher's points, plus (1 − α) · difference to the truth."""
    soft, hard = _point_cells(student, teacher, kind), _point_cells(student, truth.unsqueeze(0), kind)
    return _mixed(soft, hard, alpha, weights, gate, labelled)


Quantiles = Float[Tensor, "members batch horizon levels"]
TeacherQuantiles = Float[Tensor, "#members batch horizon levels"]


def _pinball_cells(student: Quantiles, target: Tensor, levels: Float[Tensor, " levels"]) -> Points:
    short = target.detach() - student
    return torch.maximum(levels * short, (levels - 1) * short).mean(dim=-1)


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
    """Mean pinball loss of the student's quantiles to the teacher's of the same level, in the target's unit."""
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
