"""Teachers: ensembles of networks, boosted trees, or a registered model, all with the same kind of soft labels.

A recipe has one teacher for each of its views; students learn from the mean of their labels. It may have further
teachers for shorter horizons: each hour of a window is labelled by the one with the shortest horizon that covers it. A
teacher in the relative future labels the hours of a window from places within its horizon.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.data.windows import gather_future
from tutelage.distil.boosted import BoostedTeacher, boosted_labels, train_boosted
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.ensemble import ensemble_labels, ensemble_states, join_states, train_ensemble
from tutelage.distil.privilege import UNPRIVILEGED
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import (
    SMALLEST_PROBABILITY,
    SoftLabels,
    join_windows,
    label_losses,
    likely_weights,
    mean_labels,
    splice_horizons,
)
from tutelage.distil.views import shuffle_windows
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts
from tutelage.model.architectures import States
from tutelage.model.heads import probabilities_of
from tutelage.model.inference import Student, forecast_windows
from tutelage.model.networks import Forecaster
from tutelage.model.training import Progress, Take

ForecastFunction = Callable[[WindowDataset, Tensor], Forecasts]
"""An existing model as a function: its forecasts of a dataset's windows, with quantiles at QUANTILE_LEVELS."""
Teacher = Forecaster | BoostedTeacher | ForecastFunction


@dataclass(frozen=True)
class TeacherSpec:
    """One of a recipe's teachers: its name in files and runs, the recipe with only its views, its horizon in hours.

    view: the name that it shares with the teachers of other horizons that see the same; labels are averaged over views
    """

    name: str
    recipe: Recipe
    horizon: int
    view: str


FIRST_TEACHER = "teacher"
"""The name of the first view's teacher for the whole horizon; terms compare its hidden states."""


PRETRAINED_TEACHER = "pretrained"
"""The name of a pretrained model among the teachers."""
SIMPLE_TEACHER = "simple"
"""The name of the mean of the simple forecasts among the teachers."""


def list_teachers(recipe: Recipe, horizon: int) -> list[TeacherSpec]:
    """All teachers of a recipe, by view, then by ascending horizon; simple forecasts and a pretrained model come last.

    Raises ValueError where the horizon is too short for the recipe.
    """
    recipe.require_horizon(horizon)
    specs = []
    for place, of_view in enumerate(recipe.by_view(), start=1):
        name = FIRST_TEACHER if place == 1 else f"{FIRST_TEACHER}-{place}"
        if of_view.teacher.views.relative_hours is not None:
            specs.append(TeacherSpec(name, of_view, of_view.teacher.views.relative_hours, name))
            continue
        specs += [TeacherSpec(f"{name}-{shorter}h", of_view, shorter, name) for shorter in recipe.teacher.horizons]
        specs.append(TeacherSpec(name, of_view, horizon, name))
    plain = recipe.override({"teacher.views": UNPRIVILEGED, "teacher.more_views": ()})
    further = {SIMPLE_TEACHER: recipe.teacher.simple, PRETRAINED_TEACHER: recipe.teacher.pretrained_name is not None}
    return specs + [TeacherSpec(name, plain, horizon, name) for name, wanted in further.items() if wanted]


def train_teacher(
    dataset: WindowDataset,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    take: Take = "best",
) -> tuple[Forecaster | BoostedTeacher, Progress]:
    """Train a teacher of the recipe's kind with its first view. Trees report a single epoch.

    Raises GapsError where there are too few windows for boosted trees.
    """
    if recipe.teacher.kind != "boosted":
        return train_ensemble(dataset, recipe, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, take=take)
    trees = train_boosted(dataset, recipe, seed=seed)
    progress = progress_of(trees, dataset, recipe, seed=seed)
    on_epoch(progress)
    return trees, progress


def progress_of(teacher: Teacher, dataset: WindowDataset, recipe: Recipe, *, seed: int) -> Progress:
    """The progress of a teacher without epochs: one epoch, with its cross-entropy on training and validation part."""
    train, validation = (
        float(label_losses(label_windows(teacher, dataset, part, recipe, seed=seed), dataset).mean())
        for part in (dataset.train, dataset.validation)
    )
    history = [{"epoch": 1, "train": [train], "validation": [validation]}]
    return Progress(epoch=1, best_loss=[validation], best_epoch=[1], history=history, done=True)


def exported_inputs(
    student: Student, dataset: WindowDataset, origins: Int64[Tensor, " windows"]
) -> tuple[Float[np.ndarray, "windows lookback observed"], Float[np.ndarray, "windows horizon known"]]:
    """What an exported student sees of a dataset's windows: the observed past and the known future."""
    lookback, complete = map(student.grid.steps, (student.card["lookback_hours"], student.complete_hours))
    observed = dataset.long_past(origins, lookback, complete=complete)
    return observed.cpu().numpy(), gather_future(dataset.panel.known, origins, dataset.horizon).cpu().numpy()


def forecast_exported(student: Student, dataset: WindowDataset, origins: Int64[Tensor, " windows"]) -> Forecasts:
    """An exported student's forecasts of a dataset's windows, in the target's unit."""
    return forecast_inputs(student, dataset, origins, *exported_inputs(student, dataset, origins))


def forecast_inputs(
    student: Student,
    dataset: WindowDataset,
    origins: Int64[Tensor, " windows"],
    seen: Float[np.ndarray, "windows lookback observed"],
    ahead: Float[np.ndarray, "windows horizon known"],
) -> Forecasts:
    """An exported student's forecasts of these inputs, as if they were those of a dataset's windows."""
    sizes = dataset.panel.sizes
    if sizes is None:
        return forecast_windows(student, seen, ahead, dataset.panel.names_at(origins))
    # The student may have been trained on other sizes of the same series.
    size = dataset.panel.size_at(origins)
    seen, ahead = (
        sizes.times(values, student.card[kind], size) for values, kind in ((seen, "observed"), (ahead, "known_future"))
    )
    forecasts = forecast_windows(student, seen, ahead, dataset.panel.names_at(origins))
    return Forecasts(forecasts.mean / size[:, None], forecasts.quantiles / size[:, None, None])


def quantile_labels(
    forecast: ForecastFunction, dataset: WindowDataset, origins: Int64[Tensor, " windows"]
) -> SoftLabels:
    """A model's quantile forecasts as soft labels over the dataset's bins."""
    device = origins.device
    quantiles = torch.from_numpy(forecast(dataset, origins).quantiles).float().to(device)
    # A model's quantiles may cross; sorting removes crossings and never adds error (Chernozhukov et al. 2010).
    levels = torch.tensor(QUANTILE_LEVELS, device=device)
    probabilities = probabilities_of(quantiles.sort(dim=-1).values, levels, dataset.edges())
    return SoftLabels(origins, probabilities.clamp(min=SMALLEST_PROBABILITY).log())


def label_windows(
    teacher: Teacher, dataset: WindowDataset, origins: Int64[Tensor, " windows"], recipe: Recipe, *, seed: int
) -> SoftLabels:
    """The soft labels of any teacher; `origins` and `seed` are as in `ensemble.ensemble_labels`."""
    if isinstance(teacher, Forecaster):
        return ensemble_labels(teacher, dataset, origins, recipe, seed=seed)
    if isinstance(teacher, BoostedTeacher):
        return boosted_labels(teacher, dataset, origins, recipe, seed=seed)
    return quantile_labels(teacher, dataset, origins)


def _labels_on_the_way(
    teacher: Teacher, dataset: WindowDataset, origins: Int64[Tensor, " windows"], recipe: Recipe, *, seed: int
) -> SoftLabels:
    """The labels of a teacher in the relative future: it stands at every such part of the horizon, and labels the next.

    A placebo teacher stands in other windows. Steps before which it lacks an observed value get uniform labels.
    Source of the idea: Future-Guided Learning, arXiv:2410.15217.
    """
    assert recipe.teacher.views.relative_hours is not None
    step = dataset.panel.grid.steps(recipe.teacher.views.relative_hours, called="relative_hours")
    stand = shuffle_windows(origins, seed=seed) if recipe.teacher.views.placebo else origins
    parts = []
    for passed in range(0, dataset.horizon, step):
        # The last one stands early enough to see nothing after the horizon.
        place = min(passed, dataset.horizon - step)
        labels = label_windows(teacher, dataset.shortened(step), stand + place, recipe, seed=seed)
        parts.append(labels.log_probabilities[:, passed - place :])
    logs = torch.cat(parts, dim=1)
    return SoftLabels(origins, torch.where(logs.isfinite(), logs, -math.log(logs.shape[-1])))


def label_views(
    teachers: Mapping[TeacherSpec, Teacher], dataset: WindowDataset, origins: Int64[Tensor, " windows"], *, seed: int
) -> dict[str, SoftLabels]:
    """The soft labels of each view's teachers, by the view's name; `origins` are one part."""
    by_view: dict[str, list[SoftLabels]] = {}
    for spec, teacher in sorted(teachers.items(), key=lambda item: item[0].horizon):
        if spec.recipe.teacher.views.relative_hours is not None:
            labels = _labels_on_the_way(teacher, dataset, origins, spec.recipe, seed=seed)
        else:
            shorter = dataset.shortened(dataset.panel.grid.steps(spec.horizon, called="horizons"))
            labels = label_windows(teacher, shorter, origins, spec.recipe, seed=seed)
        by_view.setdefault(spec.view, []).append(labels)
    return {view: splice_horizons(labels) for view, labels in by_view.items()}


TeacherWeights = Mapping[str, Sequence[float]]
"""The weight of each view's teachers by hour of the horizon, by the view's name."""


def label_part(
    teachers: Mapping[TeacherSpec, Teacher],
    dataset: WindowDataset,
    origins: Int64[Tensor, " windows"],
    *,
    seed: int,
    weights: TeacherWeights | None = None,
) -> SoftLabels:
    """The soft labels of all teachers as one set; `origins` are one part. Without weights all views count equally."""
    by_view = label_views(teachers, dataset, origins, seed=seed)
    of_views = None if not weights else torch.tensor([list(weights[view]) for view in by_view])
    return mean_labels(list(by_view.values()), of_views)


def weigh_teachers(
    held_out: Sequence[tuple[Mapping[TeacherSpec, Teacher], WindowDataset]], recipe: Recipe, *, seed: int
) -> dict[str, list[float]] | None:
    """The weights under which the mean of all views makes the actual values of held-out blocks most likely.

    None: in this recipe all views count equally.

    held_out: the teachers of each block, and the block, as validation part; seed: of the first block's teachers
    """
    if recipe.teacher.weights == "equal":
        return None
    losses: dict[str, list[Tensor]] = {}
    for number, (teachers, block) in enumerate(held_out):
        for view, labels in label_views(teachers, block, block.validation, seed=seed + number).items():
            losses.setdefault(view, []).append(label_losses(labels, block))
    weights = likely_weights(torch.stack([torch.cat(of_view) for of_view in losses.values()]))
    return dict(zip(losses, weights.tolist(), strict=True))


def label_taught(
    teachers: Mapping[TeacherSpec, Teacher],
    dataset: WindowDataset,
    *,
    seed: int,
    weights: TeacherWeights | None = None,
) -> SoftLabels:
    """The soft labels that students learn from, in the order of `dataset.taught()`.

    The parts are labelled separately: a placebo teacher shuffles within a part, and must see the training part as in
    its training.
    """
    parts = _taught_parts(dataset)
    return join_windows([label_part(teachers, dataset, part, seed=seed, weights=weights) for part in parts])


def states_taught(teachers: Mapping[TeacherSpec, Teacher], dataset: WindowDataset, *, seed: int) -> States:
    """The hidden states of a recipe's first teacher, in the order of `dataset.taught()`.

    Raises ValueError where that teacher is not a network; recipes with terms that need states always have one.
    """
    spec, first = next(item for item in teachers.items() if item[0].name == FIRST_TEACHER)
    if not isinstance(first, Forecaster):
        raise ValueError("only a network has hidden states")  # noqa: TRY004 - the recipe is at fault, not a type
    parts = [ensemble_states(first, dataset, part, spec.recipe, seed=seed) for part in _taught_parts(dataset)]
    return join_states(parts, lambda values: torch.cat(values, dim=1))


def _taught_parts(dataset: WindowDataset) -> list[Tensor]:
    return [part for part in (dataset.train, dataset.unlabelled, dataset.transfer) if len(part)]
