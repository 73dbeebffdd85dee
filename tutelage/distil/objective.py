"""The students' objective: their head's losses against truth and teacher, and further terms against the teacher.

`make_objective` collects everything that is constant during training; the objective is then called with batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tutelage.distil.dataset import WindowDataset
from tutelage.distil.losses import (
    attention_loss,
    categorical_distillation_loss,
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
from tutelage.distil.plans import StudentPlan
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SoftLabels
from tutelage.distil.terms import HIDDEN_STATE_TERMS
from tutelage.model.architectures import States
from tutelage.model.heads import HEAD_LEVELS, bin_index, head_labels, ordered_quantiles
from tutelage.model.kinds import Head, PointLoss
from tutelage.model.networks import Forecaster

Outputs = Float[Tensor, "members batch horizon values"]
Truth = Float[Tensor, "batch horizon"]
PerMember = Float[Tensor, " members"]
SCALES = (2, 4, 8)


@dataclass(frozen=True)
class HeadLoss:
    """The constants that turn a head's outputs and the truth, in the target's unit, into losses; on one device.

    edges: of the bins; scale: the target's mean and standard deviation; levels: HEAD_LEVELS
    weights: of the hours of the horizon; None: all equal
    """

    head: Head
    edges: Float[Tensor, " edges"]
    scale: Float[Tensor, " 2"]
    levels: Float[Tensor, " levels"]
    weights: Float[Tensor, " horizon"] | None
    points: PointLoss = "squared"

    def standardised(self, truth: Truth) -> Truth:
        """The truth, standardised."""
        return (truth - self.scale[0]) / self.scale[1]


def make_head_loss(
    head: Head,
    edges: Float[Tensor, " edges"],
    scale: Float[Tensor, " 2"],
    *,
    horizon: int,
    decay: float,
    points: PointLoss = "squared",
) -> HeadLoss:
    """The losses of a head; each hour of the horizon has `decay` times the weight of the hour before."""
    hours = torch.arange(horizon, device=scale.device, dtype=scale.dtype)
    return HeadLoss(
        head=head,
        edges=edges,
        scale=scale,
        levels=torch.tensor(HEAD_LEVELS, device=scale.device),
        weights=None if decay == 1 else decay**hours,
        points=points,
    )


def truth_loss(head_loss: HeadLoss, outputs: Outputs, truth: Truth) -> PerMember:
    """Cross-entropy, pinball loss or point loss, by head; early stopping uses it, so all hours have the same weight."""
    if head_loss.head == "categorical":
        return hard_label_loss(outputs, bin_index(truth, head_loss.edges))
    if head_loss.head == "point":
        return point_loss(outputs.squeeze(-1), head_loss.standardised(truth).unsqueeze(0), kind=head_loss.points)
    return pinball_loss(ordered_quantiles(outputs), head_loss.standardised(truth), head_loss.levels)


def distillation_loss(
    head_loss: HeadLoss,
    outputs: Outputs,
    teacher: Float[Tensor, "#members batch horizon values"],
    truth: Truth,
    *,
    alpha: PerMember,
    temperature: float | PerMember,
    gate: Float[Tensor, "#members batch horizon"] | None,
    labelled: Bool[Tensor, "batch horizon"] | None = None,
) -> PerMember:
    """α times the loss to the teacher's labels, plus 1 − α times the loss to the truth where it is labelled.

    `teacher` are labels as from `heads.head_labels`. Where `labelled` is false, `truth` is any finite value.
    """
    weights = head_loss.weights
    if head_loss.head == "categorical":
        labels = bin_index(truth, head_loss.edges)
        return categorical_distillation_loss(
            outputs,
            teacher,
            labels,
            alpha=alpha,
            temperature=temperature,
            weights=weights,
            gate=gate,
            labelled=labelled,
        )
    actual = head_loss.standardised(truth)
    if head_loss.head == "point":
        points, labels = outputs.squeeze(-1), teacher.squeeze(-1)
        return point_distillation_loss(
            points,
            labels,
            actual,
            alpha=alpha,
            kind=head_loss.points,
            weights=weights,
            gate=gate,
            labelled=labelled,
        )
    quantiles = ordered_quantiles(outputs)
    return quantile_distillation_loss(
        quantiles, teacher, actual, head_loss.levels, alpha=alpha, weights=weights, gate=gate, labelled=labelled
    )


def path_of(head_loss: HeadLoss, outputs: Outputs) -> Float[Tensor, "members batch horizon"]:
    """The forecast's mean over the horizon, standardised."""
    if head_loss.head == "categorical":
        logs = outputs.log_softmax(dim=-1)
        return head_labels(logs, "point", edges=head_loss.edges, scale=head_loss.scale).squeeze(-1)
    return outputs.squeeze(-1) if head_loss.head == "point" else ordered_quantiles(outputs).mean(dim=-1)


def _directions(head_loss: HeadLoss, values: Outputs) -> Outputs:
    """A vector for each hour, for similarities between hours: the quantiles, or the square roots of probabilities.

    The cosine of square roots of probabilities is the Bhattacharyya coefficient: 1 between equal distributions, 0
    between distributions that share no bin.
    """
    if head_loss.head == "point":
        raise ValueError("the term 'times' needs a head with more than one value per hour")
    return (0.5 * values.log_softmax(dim=-1)).exp() if head_loss.head == "categorical" else values


def _hours_of(head_loss: HeadLoss, outputs: Outputs) -> Outputs:
    """The vectors of `_directions` from a student's outputs."""
    return _directions(head_loss, ordered_quantiles(outputs) if head_loss.head == "quantiles" else outputs)


def term_loss(
    head_loss: HeadLoss,
    weights: dict[str, PerMember],
    *,
    outputs: Outputs,
    labels: Float[Tensor, "#members batch horizon values"],
    path: Float[Tensor, "#members batch horizon"],
    states: States,
    teacher: States | None,
    projection: Callable[[Tensor], Tensor] | None,
) -> PerMember:
    """The weighted sum of the further terms.

    weights: of the terms that any member has, one value per member
    labels: the teacher's, as from `heads.head_labels`; path: the teacher's mean, standardised
    states: the students'; teacher: the states of their teacher

    Raises ValueError where the horizon, the head, the student's network or the teacher lacks something that a term
    needs.
    """
    total = torch.zeros(outputs.shape[0], device=outputs.device)
    if weights.keys() & {"scale", "period"}:
        student_path = path_of(head_loss, outputs)
    for name, weight in weights.items():
        if name in HIDDEN_STATE_TERMS:
            kind = HIDDEN_STATE_TERMS[name]
            student_state, teacher_state = (None if side is None else getattr(side, kind) for side in (states, teacher))
            if student_state is None or teacher_state is None:
                raise ValueError(f"the term {name!r} needs {kind} of student and teacher")
            loss = _hidden_state_loss(name, student_state, teacher_state, projection)
        elif name == "times":
            loss = time_relation_loss(_hours_of(head_loss, outputs), _directions(head_loss, labels))
        elif name == "scale":
            fitting = [scale for scale in SCALES if scale <= path.shape[-1]]
            loss = multi_scale_loss(student_path, path, scales=fitting)
        elif name == "period":
            loss = multi_period_loss(student_path, path)
        else:
            raise ValueError(f"the term {name!r} has no loss")
        total = total + weight * loss
    return total


def _hidden_state_loss(
    name: str, student: Tensor, teacher: Tensor, projection: Callable[[Tensor], Tensor] | None
) -> PerMember:
    if projection is not None and name == "features":
        return feature_loss(student, teacher, projection)
    if name == "variables":
        # Each token is a variable; its width takes the place of time steps.
        return variable_relation_loss(student.mT, teacher.mT)
    losses = {"windows": window_relation_loss, "distances": window_distance_loss, "attention": attention_loss}
    return losses[name](student, teacher)


@dataclass(frozen=True)
class Objective:
    """The training loss of students that train side by side, with everything that is constant during training.

    labels: the sets of soft labels, as the head compares them; paths: their means, standardised
    held_out: the same of the validation part, to stop by; None: stop by the truth
    gate: the factor on α for each set; states: of the sets' teachers
    set_of: (members,), each member's set; row_of: (hours,), the row of `labels` for each origin
    terms: weights by name, one value per member
    """

    dataset: WindowDataset
    head_loss: HeadLoss
    labels: Float[Tensor, "sets taught horizon values"]
    paths: Float[Tensor, "sets taught horizon"]
    held_out: Float[Tensor, "sets validation horizon values"] | None
    gate: Float[Tensor, "sets taught horizon"] | None
    states: States | None
    set_of: Int64[Tensor, " members"]
    row_of: Int64[Tensor, " hours"]
    alpha: PerMember
    temperature: float | PerMember
    terms: dict[str, PerMember]

    def __call__(self, network: Forecaster, batch: Int64[Tensor, " batch"]) -> PerMember:
        """The loss of each member on the windows with these origins."""
        rows, inputs = self.row_of[batch], self.dataset.student_inputs(batch)
        chosen = (slice(None), rows) if len(self.labels) == 1 else (self.set_of[:, None], rows)
        states = network.states(*inputs)
        outputs, labels, truth = network.read(states.hidden), self.labels[chosen], self.dataset.truth(batch)
        labelled = truth.isfinite() if len(self.dataset.unlabelled) else None
        total = distillation_loss(
            self.head_loss,
            outputs,
            labels,
            truth if labelled is None else truth.nan_to_num(),
            alpha=self.alpha,
            temperature=self.temperature,
            gate=None if self.gate is None else self.gate[chosen],
            labelled=labelled,
        )
        if not self.terms:
            return total
        return total + term_loss(
            self.head_loss,
            self.terms,
            outputs=outputs,
            labels=labels,
            path=self.paths[chosen],
            states=states,
            teacher=None if self.states is None else self.states.at(chosen),
            projection=getattr(network, PROJECTION, None),
        )

    def validation_loss(self, network: Forecaster, *, chunk: int) -> PerMember:
        """The loss of each member on the validation part, computed in chunks of windows.

        It is that to the truth; where soft labels are given to stop by, a distilled student's is that to them alone.
        """
        origins, done = self.dataset.validation, 0
        total = torch.zeros(network.members, device=origins.device)
        for part in origins.split(chunk):
            outputs, truth = network(*self.dataset.student_inputs(part)), self.dataset.truth(part)
            loss = truth_loss(self.head_loss, outputs, truth)
            if self.held_out is not None:
                labels, whole = self.held_out[self.set_of, done : done + len(part)], torch.ones_like(loss)
                soft = distillation_loss(
                    self.head_loss, outputs, labels, truth, alpha=whole, temperature=self.temperature, gate=None
                )
                loss = torch.where(self.alpha > 0, soft, loss)
            total += loss * len(part)
            done += len(part)
        return total / len(origins)


PROJECTION = "projection"
"""The module that maps a network's hidden state to the teacher's width; it exists only during training."""


def make_objective(
    dataset: WindowDataset,
    soft: Sequence[SoftLabels],
    plans: Sequence[StudentPlan],
    recipe: Recipe,
    *,
    held_out: Sequence[SoftLabels] | None = None,
    gate: Float[Tensor, "#sets #taught #horizon"] | None,
    states: States | None,
) -> Objective:
    """The objective of students with these plans and sets of soft labels; sets that no plan uses are dropped.

    Raises ValueError where a window of `dataset.taught()` has no soft labels.
    """
    device, student, origins = dataset.panel.observed.device, recipe.student, dataset.taught()
    taught = [plan for plan in plans if plan.taught]
    teaching_sets = sorted({plan.soft for plan in taught}) or [0]
    labels = torch.stack([soft[place].at(origins) for place in teaching_sets])
    to_stop_by = [held_out[place].at(dataset.validation) for place in teaching_sets] if held_out else []
    edges, scale = dataset.edges(), dataset.scale()
    row_of = torch.full((len(dataset.panel.step),), -1, dtype=torch.int64, device=device)
    row_of[origins] = torch.arange(len(origins), device=device)
    # One number where all distilled students have the same temperature; the twins don't use it.
    temperatures = [plan.temperature for plan in taught] or [1.0]
    per_member = len(set(temperatures)) > 1
    names = sorted({name for plan in plans for name, weight in vars(plan.terms).items() if weight})
    if gate is not None:
        # Expand first: all sets may share one gate.
        gate = gate.expand(len(soft), *labels.shape[1:3])[teaching_sets]
    return Objective(
        dataset=dataset,
        head_loss=make_head_loss(
            student.head,
            edges,
            scale,
            horizon=dataset.horizon,
            decay=recipe.distillation.horizon_decay,
            points=student.point_loss,
        ),
        labels=head_labels(labels, student.head, edges=edges, scale=scale),
        paths=head_labels(labels, "point", edges=edges, scale=scale).squeeze(-1),
        held_out=head_labels(torch.stack(to_stop_by), student.head, edges=edges, scale=scale) if to_stop_by else None,
        gate=gate,
        states=None if states is None else states.at(teaching_sets),
        set_of=torch.tensor([teaching_sets.index(p.soft) if p.taught else 0 for p in plans], device=device),
        row_of=row_of,
        alpha=torch.tensor([plan.alpha for plan in plans], device=device),
        temperature=torch.tensor([p.temperature for p in plans], device=device) if per_member else temperatures[0],
        terms={name: torch.tensor([getattr(p.terms, name) for p in plans], device=device) for name in names},
    )
