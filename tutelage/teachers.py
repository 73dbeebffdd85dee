"""Who teaches: ensembles of networks, boosted trees, or a model that is there already; all by their soft labels.

A recipe has a teacher for each of its views, and the mean of what they say is taught. It may have further ones for
shorter horizons: of each window, every hour is told by the teacher with the shortest horizon that reaches it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.bodies import States
from tutelage.boosted import BoostedTeacher, boosted_soft_labels, train_boosted
from tutelage.distillation import Task, join_states, mean_labels, soft_labels, teacher_states, train_teacher
from tutelage.fit import Progress
from tutelage.gating import cell_losses
from tutelage.heads import QUANTILE_LEVELS, probabilities_of
from tutelage.metrics import Forecasts
from tutelage.networks import Forecaster
from tutelage.recipe import Recipe

Told = Callable[[Task, Tensor], Forecasts]
"""A model that is there already: what it forecasts for the windows of a task, quantiles at QUANTILE_LEVELS."""
Teacher = Forecaster | BoostedTeacher | Told
LEAST = 1e-12
"""No probability of a bin is taken to be smaller: its logarithm must be finite."""


def quantile_soft_labels(
    told: Told, task: Task, origins: Int64[Tensor, " windows"]
) -> Float[Tensor, "windows horizon bins"]:
    """A model's quantile forecasts as log-probabilities over the task's bins."""
    device = origins.device
    quantiles = torch.from_numpy(told(task, origins).quantiles).float().to(device)
    # Quantiles of some models cross; sorted, they are the nearest that don't (Chernozhukov et al. 2010).
    levels = torch.tensor(QUANTILE_LEVELS, device=device)
    return probabilities_of(quantiles.sort(dim=-1).values, levels, task.edges()).clamp(min=LEAST).log()


def labels_of(
    teacher: Teacher, task: Task, origins: Int64[Tensor, " windows"], recipe: Recipe, *, seed: int
) -> Float[Tensor, "windows horizon bins"]:
    """The soft labels of any teacher; origins and seed are as for `distillation.soft_labels`."""
    if isinstance(teacher, Forecaster):
        return soft_labels(teacher, task, origins, recipe, seed=seed)
    if isinstance(teacher, BoostedTeacher):
        return boosted_soft_labels(teacher, task, origins, recipe, seed=seed)
    return quantile_soft_labels(teacher, task, origins)


def train_any(
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster | BoostedTeacher, Progress]:
    """Train a teacher of the recipe's kind. Trees have no epochs: their progress is one, with its losses.

    Raises GapsError where there are too few windows for boosted trees.
    """
    if recipe.teacher != "boosted":
        return train_teacher(task, recipe, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch)
    trees = train_boosted(task, recipe, seed=seed)
    progress = judged(trees, task, recipe, seed=seed)
    on_epoch(progress)
    return trees, progress


def judged(teacher: Teacher, task: Task, recipe: Recipe, *, seed: int) -> Progress:
    """The progress of a teacher without epochs: one, with its cross-entropy on the training and validation part."""
    train, validation = (
        float(cell_losses(labels_of(teacher, task, part, recipe, seed=seed), task.labels(part)).mean())
        for part in (task.train, task.validation)
    )
    history = [{"epoch": 1, "train": [train], "validation": [validation]}]
    return Progress(epoch=1, best_loss=[validation], best_epoch=[1], history=history, done=True)


@dataclass(frozen=True)
class Chair:
    """One of a recipe's teachers: what it is called in files and runs, the recipe with its own views, its horizon."""

    name: str
    recipe: Recipe
    horizon: int


def chairs_of(recipe: Recipe, horizon: int) -> list[Chair]:
    """All teachers of a recipe: view by view, each by ascending horizon; the first view's last is called "teacher".

    Raises ValueError where the horizon of a shorter teacher is not shorter.
    """
    if any(shorter >= horizon for shorter in recipe.teacher_horizons):
        raise ValueError(f"teacher_horizons {recipe.teacher_horizons} are not all below the horizon, {horizon} h")
    found = []
    for place, own in enumerate(recipe.by_view(), start=1):
        name = "teacher" if place == 1 else f"teacher-{place}"
        found += [Chair(f"{name}-{shorter}h", own, shorter) for shorter in recipe.teacher_horizons]
        found.append(Chair(name, own, horizon))
    return found


def shortened(task: Task, horizon: int) -> Task:
    """The same windows, of which only the first hours are asked for."""
    return replace(task, horizon=horizon)


def splice(labels: Sequence[Float[Tensor, "windows _ bins"]]) -> Float[Tensor, "windows horizon bins"]:
    """Soft labels of teachers with ascending horizons as one: the shorter teacher speaks for the hours it reaches."""
    parts, told = [], 0
    for some in labels:
        parts.append(some[:, told:])
        told = some.shape[1]
    return torch.cat(parts, dim=1)


def teach(
    teachers: Mapping[Chair, Teacher], task: Task, origins: Int64[Tensor, " windows"], *, seed: int
) -> Float[Tensor, "windows horizon bins"]:
    """The soft labels of all teachers as one; the windows are one part."""
    by_view: dict[Recipe, list[Tensor]] = {}
    for chair, teacher in sorted(teachers.items(), key=lambda item: item[0].horizon):
        labels = labels_of(teacher, shortened(task, chair.horizon), origins, chair.recipe, seed=seed)
        by_view.setdefault(chair.recipe, []).append(labels)
    return mean_labels([splice(labels) for labels in by_view.values()])


def teach_taught(teachers: Mapping[Chair, Teacher], task: Task, *, seed: int) -> Float[Tensor, "taught horizon bins"]:
    """The soft labels that students learn from, in the order of `task.taught()`.

    A placebo teacher sees each part shuffled in itself, so the training part comes by itself, as it was trained on.
    """
    return torch.cat([teach(teachers, task, part, seed=seed) for part in _parts(task)])


def states_taught(teacher: Forecaster, task: Task, recipe: Recipe, *, seed: int) -> States:
    """The states of a network that teaches, in the order of `task.taught()`; the parts by themselves, as above."""
    told = [teacher_states(teacher, task, part, recipe, seed=seed) for part in _parts(task)]
    return join_states(told, lambda values: torch.cat(values, dim=1))


def first_states_taught(teachers: Mapping[Chair, Teacher], task: Task, *, seed: int) -> States:
    """The states of a recipe's first teacher, as of `states_taught`; terms that need them ask for a network there."""
    chair, first = next(item for item in teachers.items() if item[0].name == "teacher")
    assert isinstance(first, Forecaster), "a recipe whose terms need states has a network for its teacher"
    return states_taught(first, task, chair.recipe, seed=seed)


def _parts(task: Task) -> list[Tensor]:
    return [part for part in (task.train, task.unlabelled) if len(part)]
