"""What students are taught by: the losses of their head, from truth and teacher, and further terms beside them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.bodies import States
from tutelage.heads import HEAD_LEVELS, bin_index, head_labels, ordered_quantiles
from tutelage.losses import (
    attention_loss,
    distillation_loss,
    feature_loss,
    hard_label_loss,
    multi_period_loss,
    multi_scale_loss,
    pinball_loss,
    point_distillation_loss,
    point_loss,
    quantile_distillation_loss,
    time_relation_loss,
    variable_relation_loss,
    window_distance_loss,
    window_relation_loss,
)
from tutelage.recipe import INSIDE, Head, PointLoss

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
    points: PointLoss = "squared"

    def standardised(self, truth: Truth) -> Truth:
        """The truth in standard deviations around the mean."""
        return (truth - self.scale[0]) / self.scale[1]


def make_measure(
    head: Head,
    edges: Float[Tensor, " edges"],
    scale: Float[Tensor, " 2"],
    *,
    horizon: int,
    decay: float,
    points: PointLoss = "squared",
) -> Measure:
    """The measure of a head; each hour of the horizon weighs `decay` times the hour before."""
    hours = torch.arange(horizon, device=scale.device, dtype=scale.dtype)
    return Measure(
        head=head,
        edges=edges,
        scale=scale,
        levels=torch.tensor(HEAD_LEVELS, device=scale.device),
        weights=None if decay == 1 else decay**hours,
        points=points,
    )


def truth_loss(measure: Measure, outputs: Outputs, truth: Truth) -> PerMember:
    """Cross-entropy, pinball loss or squared error, by the head; all hours weigh the same: validation stops by it."""
    if measure.head == "categorical":
        return hard_label_loss(outputs, bin_index(truth, measure.edges))
    if measure.head == "point":
        return point_loss(outputs.squeeze(-1), measure.standardised(truth).unsqueeze(0), kind=measure.points)
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
    labelled: Bool[Tensor, "batch horizon"] | None = None,
) -> PerMember:
    """α times the loss to the teacher (as of `heads.head_labels`), plus 1 − α times that to the truth, where labelled.

    Where it is not, any finite value stands in the truth's place.
    """
    weights = measure.weights
    if measure.head == "categorical":
        labels = bin_index(truth, measure.edges)
        return distillation_loss(
            outputs,
            teacher,
            labels,
            alpha=alpha,
            temperature=temperature,
            weights=weights,
            gate=gate,
            labelled=labelled,
        )
    actual = measure.standardised(truth)
    if measure.head == "point":
        points, wanted = outputs.squeeze(-1), teacher.squeeze(-1)
        return point_distillation_loss(
            points, wanted, actual, alpha=alpha, kind=measure.points, weights=weights, gate=gate, labelled=labelled
        )
    quantiles = ordered_quantiles(outputs)
    return quantile_distillation_loss(
        quantiles, teacher, actual, measure.levels, alpha=alpha, weights=weights, gate=gate, labelled=labelled
    )


def path_of(measure: Measure, outputs: Outputs) -> Float[Tensor, "members batch horizon"]:
    """The forecast's mean over the horizon, standardised."""
    if measure.head == "categorical":
        logs = outputs.log_softmax(dim=-1)
        return head_labels(logs, "point", edges=measure.edges, scale=measure.scale).squeeze(-1)
    return outputs.squeeze(-1) if measure.head == "point" else ordered_quantiles(outputs).mean(dim=-1)


def _directions(measure: Measure, values: Outputs) -> Outputs:
    """Of each hour what similarities between hours compare: the forecast quantiles, or the bins' probabilities.

    Of probabilities the square roots: their cosine is the Bhattacharyya coefficient, 1 between equal distributions and
    0 between those that share no bin.
    """
    if measure.head == "point":
        raise ValueError("the term 'times' needs a head with more than one value an hour")
    return (0.5 * values.log_softmax(dim=-1)).exp() if measure.head == "categorical" else values


def _hours_of(measure: Measure, outputs: Outputs) -> Outputs:
    """The same of a student's outputs."""
    return _directions(measure, ordered_quantiles(outputs) if measure.head == "quantiles" else outputs)


def further_loss(
    measure: Measure,
    weights: dict[str, PerMember],
    *,
    outputs: Outputs,
    labels: Float[Tensor, "#members batch horizon values"],
    path: Float[Tensor, "#members batch horizon"],
    states: States,
    teacher: States | None,
    projection: Callable[[Tensor], Tensor] | None,
) -> PerMember:
    """The weighted sum of the terms beside the head's losses; `weights` holds those that some member has.

    `labels` are the teacher's, as of `heads.head_labels`, and `path` is its mean, standardised. `states` are the
    students', `teacher` those of their teacher. Raises ValueError where a term needs what the horizon, the head, the
    student's network or the teacher does not have.
    """
    total = torch.zeros(outputs.shape[0], device=outputs.device)
    if weights.keys() & {"scale", "period"}:
        own_path = path_of(measure, outputs)
    for name, weight in weights.items():
        if name in INSIDE:
            own, wanted = (None if side is None else getattr(side, INSIDE[name]) for side in (states, teacher))
            if own is None or wanted is None:
                raise ValueError(f"the term {name!r} needs {INSIDE[name]} of student and teacher")
            loss = _inside_loss(name, own, wanted, projection)
        elif name == "times":
            loss = time_relation_loss(_hours_of(measure, outputs), _directions(measure, labels))
        elif name == "scale":
            fitting = [scale for scale in SCALES if scale <= path.shape[-1]]
            loss = multi_scale_loss(own_path, path, scales=fitting)
        else:
            loss = multi_period_loss(own_path, path)
        total = total + weight * loss
    return total


def _inside_loss(name: str, own: Tensor, wanted: Tensor, projection: Callable[[Tensor], Tensor] | None) -> PerMember:
    """One of the terms on states."""
    if projection is not None and name == "features":
        return feature_loss(own, wanted, projection)
    if name == "variables":
        # A token is a variable, and its width takes the place of time steps.
        return variable_relation_loss(own.mT, wanted.mT)
    losses = {"windows": window_relation_loss, "distances": window_distance_loss, "attention": attention_loss}
    return losses[name](own, wanted)
