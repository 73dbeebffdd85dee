"""Gates against negative transfer: where the teacher is worse than the student's own baseline, the truth teaches.

What is compared are losses on the validation part: the teacher's soft labels against a twin's forecasts. A gate is 1
where the teacher is no worse, and goes to 0 with the evidence that it is: twice the normal distribution's share below
the mean advantage over its standard error. So a short validation part, which can't tell, shuts no gate.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tutelage.distillation import Task
from tutelage.recipe import Recipe, StudentPlan
from tutelage.students import even_labels, train_students

DAY_HOURS = 24


def cell_losses(
    log_probabilities: Float[Tensor, "windows horizon bins"], labels: Int64[Tensor, "windows horizon"]
) -> Float[Tensor, "windows horizon"]:
    """Cross-entropy of each window and hour: minus the log-probability of the bin that came true."""
    return -log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def entropy(log_probabilities: Float[Tensor, "windows horizon bins"]) -> Float[Tensor, " windows"]:
    """How unsure a teacher is of each window: the mean entropy over its hours, in nats."""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1).mean(dim=1)


def _trust(advantage: Float[Tensor, " windows"], chosen: Bool[Tensor, " windows"], lag: int) -> float:
    """The gate of the chosen windows; the windows are in order of time, and overlap over `lag` of them.

    The standard error is heteroscedasticity and autocorrelation consistent, with Bartlett weights: Newey and West 1987.
    """
    count = int(chosen.sum())
    if not count:
        return 1.0
    advantage = advantage.double()
    mean = advantage[chosen].mean()
    deviation = torch.where(chosen, advantage - mean, 0.0)
    variance = deviation.square().sum()
    for step in range(1, min(lag, len(deviation) - 1) + 1):
        variance += 2 * (1 - step / (lag + 1)) * (deviation[step:] * deviation[:-step]).sum()
    error = variance.clamp(min=0).sqrt() / count
    if error == 0:
        return float(mean >= 0)
    return float((2 * torch.special.ndtr(mean / error)).clamp(max=1))


def gate_hours(
    teacher: Float[Tensor, "windows horizon"], baseline: Float[Tensor, "windows horizon"], *, lag: int
) -> Float[Tensor, " horizon"]:
    """A gate for each hour of the horizon, from both sides' losses on the validation windows, in order of time.

    `lag`: windows over which losses depend on each other; at least the horizon in windows.
    """
    everywhere = torch.ones(len(teacher), dtype=torch.bool, device=teacher.device)
    gates = [_trust(advantage, everywhere, lag) for advantage in (baseline - teacher).unbind(dim=1)]
    return torch.tensor(gates, device=teacher.device)


def gate_windows(
    teacher: Float[Tensor, "windows horizon"],
    baseline: Float[Tensor, "windows horizon"],
    unsure: Float[Tensor, " windows"],
    wanted: Float[Tensor, " train"],
    *,
    lag: int,
    groups: int = 4,
) -> Float[Tensor, " train"]:
    """A gate for each training window, by how unsure the teacher is of it.

    The validation windows are cut into equal groups by the teacher's entropy there (`unsure`); each group has its
    gate, and a training window that of the group in which its entropy (`wanted`) falls.

    Raises ValueError where there are fewer validation windows than groups, or no group.
    """
    if not 1 <= groups <= len(unsure):
        raise ValueError(f"{len(unsure)} windows can't be cut into {groups} groups")
    cuts = torch.quantile(unsure, torch.linspace(0, 1, groups + 1, device=unsure.device)[1:-1])
    group, advantage = torch.bucketize(unsure, cuts), (baseline - teacher).mean(dim=1)
    gates = torch.tensor([_trust(advantage, group == number, lag) for number in range(groups)], device=unsure.device)
    return gates[torch.bucketize(wanted, cuts)]


@torch.no_grad()
def _baseline_losses(task: Task, recipe: Recipe, *, seed: int) -> Float[Tensor, "validation horizon"]:
    """A twin's cross-entropy on the validation part; its head is categorical whatever the student's is.

    The teacher speaks of bins, and only what speaks of bins, too, can be compared with it.
    """
    plan = StudentPlan(seed=seed, alpha=0.0, dropout=recipe.student_budget.dropout)
    plain = recipe.model_copy(update={"head": "categorical"})
    labelled = replace(task, unlabelled=task.train[:0])
    with torch.enable_grad():
        twin, _ = train_students(labelled, even_labels(labelled)[None], [plan], plain, seed=seed)
    logits = [twin(*task.student_inputs(some)).squeeze(0) for some in task.validation.split(1024)]
    return cell_losses(torch.cat(logits).log_softmax(dim=-1), task.labels(task.validation))


def find_gates(
    task: Task,
    recipe: Recipe,
    soft: Float[Tensor, "sets taught horizon bins"],
    held_out: Float[Tensor, "sets validation horizon bins"],
    *,
    seed: int,
) -> Float[Tensor, "sets #taught #horizon"] | None:
    """The recipe's gate for each teacher, from its soft labels of `task.taught()` and of the validation part.

    Their reference is one twin of the student, trained with the student's whole budget. Both sides stop early on the
    validation part, so that neither has an advantage there. Losses are taken to depend on each other over the horizon,
    and over a day at least. None: the recipe has no gate.
    """
    if recipe.gate == "none" or recipe.alpha == 0:
        return None
    baseline, actual = _baseline_losses(task, recipe, seed=seed), task.labels(task.validation)
    lag, gates = max(task.horizon, DAY_HOURS), []
    for taught, told in zip(soft, held_out, strict=True):
        teacher = cell_losses(told, actual)
        if recipe.gate == "hours":
            gates.append(gate_hours(teacher, baseline, lag=lag)[None])
        else:
            gates.append(gate_windows(teacher, baseline, entropy(told), entropy(taught), lag=lag)[:, None])
    return torch.stack(gates)
