"""What students are taught by: the losses of their head, from truth and teacher, and further terms beside them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tutelage.heads import HEAD_LEVELS, bin_index, head_labels, ordered_quantiles
from tutelage.losses import (
    distillation_loss,
    feature_loss,
    hard_label_loss,
    multi_period_loss,
    multi_scale_loss,
    pinball_loss,
    point_distillation_loss,
    point_loss,
    quantile_distillation_loss,
    window_relation_loss,
)
from tutelage.recipe import Head

Outputs = Float[Tensor, "members batch horizon values"]
Truth = Float[Tensor, "batch horizon"]
PerMember = Float[Tensor, " members"]
SCALES = (2, 4, 8)


@dataclass(frozen=True)
class Measure:
    """What turns a head's outputs and the truth, in its unit, into losses: all on one device.

    edges: of the bins; scale: the target's mean and standard deviation; weights: of the horizon's hours
    """

    head: Head
    edges: Float[Tensor, " edges"]
    scale: Float[Tensor, " 2"]
    levels: Float[Tensor, " levels"]
    weights: Float[Tensor, " horizon"] | None

    def standardised(self, truth: Truth) -> Truth:
        """The truth in standard deviations around the mean."""
        return (truth - self.scale[0]) / self.scale[1]


def make_measure(
    head: Head, edges: Float[Tensor, " edges"], scale: Float[Tensor, " 2"], *, horizon: int, decay: float
) -> Measure:
    """The measure of a head; each hour of the horizon weighs `decay` times the hour before."""
    hours = torch.arange(horizon, device=scale.device, dtype=scale.dtype)
    return Measure(
        head=head,
        edges=edges,
        scale=scale,
        levels=torch.tensor(HEAD_LEVELS, device=scale.device),
        weights=None if decay == 1 else decay**hours,
    )


def truth_loss(measure: Measure, outputs: Outputs, truth: Truth) -> PerMember:
    """Cross-entropy, pinball loss or squared error, by the head; all hours weigh the same: validation stops by it."""
    if measure.head == "categorical":
        return hard_label_loss(outputs, bin_index(truth, measure.edges))
    if measure.head == "point":
        return point_loss(outputs.squeeze(-1), measure.standardised(truth).unsqueeze(0))
    return pinball_loss(ordered_quantiles(outputs), measure.standardised(truth), measure.levels)


def taught_loss(
    measure: Measure,
    outputs: Outputs,
    teacher: Float[Tensor, "#members batch horizon values"],
    truth: Truth,
    *,
    alpha: PerMember,
    temperature: float | PerMember,
    gate: Float[Tensor, "#members batch horizon"] | None,
) -> PerMember:
    """α times the loss to the teacher (as of `heads.head_labels`), plus 1 − α times that to the truth."""
    weights = measure.weights
    if measure.head == "categorical":
        labels = bin_index(truth, measure.edges)
        return distillation_loss(
            outputs, teacher, labels, alpha=alpha, temperature=temperature, weights=weights, gate=gate
        )
    actual = measure.standardised(truth)
    if measure.head == "point":
        points, wanted = outputs.squeeze(-1), teacher.squeeze(-1)
        return point_distillation_loss(points, wanted, actual, alpha=alpha, weights=weights, gate=gate)
    quantiles = ordered_quantiles(outputs)
    return quantile_distillation_loss(
        quantiles, teacher, actual, measure.levels, alpha=alpha, weights=weights, gate=gate
    )


def path_of(measure: Measure, outputs: Outputs) -> Float[Tensor, "members batch horizon"]:
    """The forecast's mean over the horizon, standardised."""
    if measure.head == "categorical":
        logs = outputs.log_softmax(dim=-1)
        return head_labels(logs, "point", edges=measure.edges, scale=measure.scale).squeeze(-1)
    return outputs.squeeze(-1) if measure.head == "point" else ordered_quantiles(outputs).mean(dim=-1)


def further_loss(
    measure: Measure,
    weights: dict[str, PerMember],
    *,
    outputs: Outputs,
    path: Float[Tensor, "#members batch horizon"],
    hidden: Float[Tensor, "members batch width"],
    teacher_hidden: Float[Tensor, "#members batch features"] | None,
    projection: nn.Module | None,
) -> PerMember:
    """The weighted sum of the terms beside the head's losses; `weights` holds those that some member has.

    `path` is the teacher's mean, standardised. Raises ValueError where a term needs what the horizon or the teacher
    does not have.
    """
    total = torch.zeros(outputs.shape[0], device=outputs.device)
    if weights.keys() & {"scale", "period"}:
        own = path_of(measure, outputs)
    for name, weight in weights.items():
        if name == "scale":
            fitting = [scale for scale in SCALES if scale <= path.shape[-1]]
            total = total + weight * multi_scale_loss(own, path, scales=fitting)
        elif name == "period":
            total = total + weight * multi_period_loss(own, path)
        elif teacher_hidden is None:
            raise ValueError(f"the term {name!r} needs the teacher's hidden states")
        elif name == "windows":
            total = total + weight * window_relation_loss(hidden, teacher_hidden)
        elif projection is not None:
            total = total + weight * feature_loss(hidden, teacher_hidden, projection)
    return total
