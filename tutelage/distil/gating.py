"""Gates against negative transfer: factors on α that fall where the teacher is worse than an undistilled student.

A gate compares losses on the validation part: the teacher's soft labels against a twin's forecasts. It is 1 where the
teacher is no worse, and falls to 0 with the evidence that it is worse: 2 Φ(mean advantage / standard error), at most 1.
So a short validation part, whose standard error is large, closes no gate.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tutelage.distil.dataset import WindowDataset
from tutelage.distil.plans import StudentPlan
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SoftLabels, bin_losses, label_losses, uniform_labels
from tutelage.distil.students import CHUNK_WINDOWS, train_students


def entropy(log_probabilities: Float[Tensor, "windows horizon bins"]) -> Float[Tensor, " windows"]:
    """A teacher's uncertainty about each window: the mean entropy over its hours, in nats."""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1).mean(dim=1)


def _trust(
    advantage: Float[Tensor, " windows"],
    chosen: Bool[Tensor, " windows"],
    lag: int,
    issued: Int64[Tensor, " windows"] | None,
) -> float:
    """The gate of the chosen windows. Issue times depend on each other over `lag` of them.

    The standard error is heteroscedasticity and autocorrelation consistent, with Bartlett weights, over issue times:
    several series share their days.
    Source: Newey and West 1987; Driscoll and Kraay 1998 for sums over series.
    """
    count = int(chosen.sum())
    if not count:
        return 1.0
    # On the CPU: not every device has float64.
    advantage, chosen = advantage.cpu().double(), chosen.cpu()
    mean = advantage[chosen].mean()
    deviation = torch.where(chosen, advantage - mean, 0.0)
    if issued is not None:
        place = issued.cpu().unique(return_inverse=True)[1]
        deviation = deviation.new_zeros(int(place.max()) + 1).index_add(0, place, deviation)
    variance = deviation.square().sum()
    for step in range(1, min(lag, len(deviation) - 1) + 1):
        variance += 2 * (1 - step / (lag + 1)) * (deviation[step:] * deviation[:-step]).sum()
    error = variance.clamp(min=0).sqrt() / count
    if error == 0:
        return float(mean >= 0)
    return float((2 * torch.special.ndtr(mean / error)).clamp(max=1))


def gate_hours(
    teacher: Float[Tensor, "windows horizon"],
    baseline: Float[Tensor, "windows horizon"],
    *,
    lag: int,
    issued: Int64[Tensor, " windows"] | None = None,
) -> Float[Tensor, " horizon"]:
    """A gate for each hour of the horizon, from both sides' losses on the validation windows.

    lag: issue times over which losses depend on each other; at least the horizon in steps
    issued: the step that each window is issued at; None: each at another, in order of time
    """
    everywhere = torch.ones(len(teacher), dtype=torch.bool, device=teacher.device)
    gates = [_trust(advantage, everywhere, lag, issued) for advantage in (baseline - teacher).unbind(dim=1)]
    return torch.tensor(gates, device=teacher.device)


def gate_windows(
    teacher: Float[Tensor, "windows horizon"],
    baseline: Float[Tensor, "windows horizon"],
    unsure: Float[Tensor, " windows"],
    wanted: Float[Tensor, " train"],
    *,
    lag: int,
    groups: int = 4,
    issued: Int64[Tensor, " windows"] | None = None,
) -> Float[Tensor, " train"]:
    """A gate for each training window, by the teacher's uncertainty about it.

    The validation windows are cut into groups of equal size by the teacher's entropy (`unsure`), and each group gets a
    gate. A training window has the gate of the group that its entropy (`wanted`) falls into.

    Raises ValueError where there are fewer validation windows than groups, or no group.
    """
    if not 1 <= groups <= len(unsure):
        raise ValueError(f"{len(unsure)} windows can't be cut into {groups} groups")
    cuts = torch.quantile(unsure, torch.linspace(0, 1, groups + 1, device=unsure.device)[1:-1])
    group, advantage = torch.bucketize(unsure, cuts), (baseline - teacher).mean(dim=1)
    trusts = [_trust(advantage, group == number, lag, issued) for number in range(groups)]
    gates = torch.tensor(trusts, device=unsure.device)
    return gates[torch.bucketize(wanted, cuts)]


@torch.no_grad()
def _baseline_losses(dataset: WindowDataset, recipe: Recipe, *, seed: int) -> Float[Tensor, "validation horizon"]:
    """A twin's cross-entropy on the validation part, with a categorical head whatever the student's head is.

    The teacher forecasts bins, and only another forecast of bins is comparable.
    """
    plan = StudentPlan(seed=seed, alpha=0.0, dropout=recipe.student.training.dropout)
    categorical = recipe.override({"student.head": "categorical"})
    labelled = replace(dataset.alone(), unlabelled=dataset.train[:0])
    with torch.enable_grad():
        twin, _ = train_students(labelled, [uniform_labels(labelled)], [plan], categorical, seed=seed)
    parts = dataset.validation.split(CHUNK_WINDOWS)
    logits = torch.cat([twin(*dataset.student_inputs(part)).squeeze(0) for part in parts])
    return bin_losses(logits.log_softmax(dim=-1), dataset.labels(dataset.validation))


def find_gates(
    dataset: WindowDataset,
    recipe: Recipe,
    taught: Sequence[SoftLabels],
    validation: Sequence[SoftLabels],
    *,
    seed: int,
) -> Float[Tensor, "sets #taught #horizon"] | None:
    """The recipe's gate for each set of soft labels, from those of the windows to be taught and of the validation part.

    The reference is one twin of the student, trained with the student's budget. Teacher and twin both stop early on the
    validation part, so neither has an advantage there. Losses are assumed to depend on each other over the horizon, or
    over a day if that is longer. None: the recipe has no gate.
    """
    distillation = recipe.distillation
    if distillation.gate == "none" or distillation.alpha == 0:
        return None
    baseline = _baseline_losses(dataset, recipe, seed=seed)
    lag, gates = max(dataset.horizon, dataset.panel.grid.of_day), []
    issued = dataset.panel.step[dataset.validation]
    for labels, held_out in zip(taught, validation, strict=True):
        teacher = label_losses(held_out, dataset)
        if distillation.gate == "hours":
            gates.append(gate_hours(teacher, baseline, lag=lag, issued=issued)[None])
        else:
            unsure, wanted = entropy(held_out.log_probabilities), entropy(labels.log_probabilities)
            gates.append(gate_windows(teacher, baseline, unsure, wanted, lag=lag, issued=issued)[:, None])
    return torch.stack(gates)
