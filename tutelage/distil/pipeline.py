"""The pipeline: train all teachers of a recipe, label windows, distil students.

These functions train once, and stop early on the validation part. `tutelage.distil.blocks` calls them for each block of
a history, as retrain, backtest and benchmarks do; `tutelage.judge.verdict` evaluates the result.

    dataset = read_dataset(spec, recipe, horizon=24, lookback=168, history_days=100, test_days=120)
    teachers = fit_teachers(dataset, recipe, seed=0)
    students = fit_students(dataset, {Contender.STUDENT: teachers.labels}, recipe, seed=0, replicates=5)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from tutelage.data.dataset import DatasetSpec
from tutelage.data.sizes import find_sizes
from tutelage.data.windows import ends_of, make_panel, read_table, split
from tutelage.distil.dataset import WindowDataset, fit_on, make_dataset, require_steps
from tutelage.distil.gating import find_gates
from tutelage.distil.plans import StudentPlan, plan_student
from tutelage.distil.recipe import Recipe
from tutelage.distil.refit import exact_budget
from tutelage.distil.simple import fit_simple_teacher
from tutelage.distil.soft_labels import SoftLabels, uniform_labels
from tutelage.distil.students import train_students
from tutelage.distil.teachers import (
    PRETRAINED_TEACHER,
    SIMPLE_TEACHER,
    ForecastFunction,
    Teacher,
    TeacherSpec,
    TeacherWeights,
    label_part,
    label_taught,
    list_teachers,
    progress_of,
    train_teacher,
)
from tutelage.forecasts import Contender
from tutelage.model.architectures import States
from tutelage.model.networks import Forecaster, select_members
from tutelage.model.training import Progress, Take, join_progress

Checkpoints = Callable[[str], Path | None]
"""The checkpoint file for the training with this name; None: no checkpoint."""
Reports = Callable[[str], Callable[[Progress], None]]
"""The function to call after each epoch of the training with this name."""


def no_checkpoint(name: str) -> Path | None:
    """Write no checkpoint."""
    return None


def no_report(name: str) -> Callable[[Progress], None]:
    """Report nothing."""
    return lambda progress: None


def read_dataset(
    spec: DatasetSpec,
    recipe: Recipe,
    *,
    horizon: int,
    lookback: int,
    history_days: int | None,
    test_days: int,
    validation_share: float = 0.2,
) -> WindowDataset:
    """Read the files of a dataset spec into windows in parts, with the test part at the end of the data.

    horizon, lookback: hours; history_days: days before the test part, None: all

    Raises DataError where the history is too short.
    """
    hours, minutes = read_table(spec, spec.ahead_hours(horizon))
    first, end = ends_of(hours, spec)
    parts = split(
        end,
        start=first,
        history_days=history_days,
        validation_share=validation_share,
        test_days=test_days,
        grid=spec.grid,
    )
    sizes = find_sizes(hours, spec, start=parts.train.start, end=parts.train.end, least=spec.grid.steps(lookback))
    panel = make_panel(hours, minutes, spec, sizes)
    return make_dataset(
        panel,
        parts,
        fit_on(panel, parts.train, bins=recipe.distillation.bins),
        lookback=spec.grid.steps(lookback, called="lookback"),
        horizon=spec.grid.steps(horizon, called="horizon"),
        unlabelled=recipe.distillation.unlabelled,
    )


@dataclass(frozen=True)
class TrainedTeachers:
    """All teachers of a recipe, and the progress of their training by name."""

    teachers: dict[TeacherSpec, Teacher]
    progress: dict[str, Progress]


def train_teachers(
    dataset: WindowDataset,
    recipe: Recipe,
    *,
    seed: int,
    registered: ForecastFunction | None = None,
    pretrained: ForecastFunction | None = None,
    epochs: Mapping[str, int] | None = None,
    checkpoints: Checkpoints = no_checkpoint,
    reports: Reports = no_report,
) -> TrainedTeachers:
    """Train all of a recipe's teachers, or use the registered model that replaces them.

    registered, pretrained: the models that the recipe names
    epochs: for a refit, the exact number of epochs of each teacher by name; it ends with its last weights

    Raises GapsError where there are too few windows for boosted trees, SpecError where the recipe asks for what steps
    of this length can't give, and ValueError where the horizon is too short for it, or a registered model isn't given.
    """
    teachers: dict[TeacherSpec, Teacher] = {}
    progress: dict[str, Progress] = {}
    require_steps(recipe, dataset.panel.grid, horizon_hours=dataset.horizon_hours)
    for spec in list_teachers(recipe, dataset.horizon_hours):
        if recipe.teacher.registered_model is not None or spec.name in (PRETRAINED_TEACHER, SIMPLE_TEACHER):
            given = registered if recipe.teacher.registered_model is not None else pretrained
            model = fit_simple_teacher(dataset) if spec.name == SIMPLE_TEACHER else given
            if model is None:
                raise ValueError(
                    f"the model {recipe.teacher.registered_model or recipe.teacher.pretrained_name} is not given"
                )
            teachers[spec], progress[spec.name] = model, progress_of(model, dataset, spec.recipe, seed=seed)
            reports(spec.name)(progress[spec.name])
            continue
        of_view = spec.recipe
        if epochs is not None:
            budget = exact_budget(of_view.teacher.training, epochs[spec.name])
            of_view = of_view.override({"teacher.training": budget})
        teachers[spec], progress[spec.name] = train_teacher(
            dataset.shortened(dataset.panel.grid.steps(spec.horizon, called="horizons")),
            of_view,
            seed=seed,
            checkpoint=checkpoints(spec.name),
            on_epoch=reports(spec.name),
            take="best" if epochs is None else "last",
        )
    return TrainedTeachers(teachers, progress)


@dataclass(frozen=True)
class PartLabels:
    """The soft labels of one set of teachers, by part of the history.

    taught: of the windows that students learn from, `dataset.taught()`
    """

    taught: SoftLabels
    validation: SoftLabels
    test: SoftLabels


def label_parts(
    teachers: Mapping[TeacherSpec, Teacher], dataset: WindowDataset, *, seed: int, weights: TeacherWeights | None = None
) -> PartLabels:
    """Soft labels of all parts; `seed` is that of the teachers' training. Without weights all views count equally."""
    return PartLabels(
        taught=label_taught(teachers, dataset, seed=seed, weights=weights),
        validation=label_part(teachers, dataset, dataset.validation, seed=seed, weights=weights),
        test=label_part(teachers, dataset, dataset.test, seed=seed, weights=weights),
    )


@dataclass(frozen=True)
class TrainedStudents:
    """Students of each set of labels and their twins: one network per contender, with one member per replicate.

    progress: of all contenders; members: the slice of each contender's members in it
    gates: the factor on α for each set of labels; None: the recipe has no gate
    """

    networks: dict[Contender, Forecaster]
    progress: Progress
    members: dict[Contender, slice]
    gates: Float[Tensor, "#sets #taught #horizon"] | None


def gates_of(
    dataset: WindowDataset, labels: Mapping[Contender, PartLabels], recipe: Recipe, *, seed: int
) -> Float[Tensor, "sets #taught #horizon"] | None:
    """The gate of each set of labels, from the validation part; None: the recipe has no gate."""
    sets = labels.values()
    return find_gates(dataset, recipe, [part.taught for part in sets], [part.validation for part in sets], seed=seed)


def distil_students(
    dataset: WindowDataset,
    labels: Mapping[Contender, PartLabels],
    recipe: Recipe,
    *,
    seed: int,
    replicates: int = 1,
    gates: Float[Tensor, "#sets #taught #horizon"] | None = None,
    states: States | None = None,
    epochs: Mapping[Contender, int] | None = None,
    checkpoints: Checkpoints = no_checkpoint,
    reports: Reports = no_report,
) -> TrainedStudents:
    """Train students on each set of labels, and their twins (α = 0), side by side.

    Windows of other sites are for students and `untaught` networks, which are twins with these windows; the twins
    themselves are then trained without them, after the others.

    labels: soft labels by contender: those of the privileged teachers for `student`, and of others as controls
    replicates: number of students of each contender, with the seeds from `seed` on. Students with the same seed share
        initial weights, batches and dropout, and differ only in their labels
    gates: those of `gates_of` for the sets of labels; None: compute them
    epochs: the exact number for each contender; None: each stops early on the validation part
    """
    gates = gates_of(dataset, labels, recipe, seed=seed) if gates is None else gates
    plan = plan_student(dataset, recipe, seed=seed)
    plans = [plan.model_copy(update={"seed": seed + number}) for number in range(replicates)]
    taught = [each.model_copy(update={"soft": place}) for place in range(len(labels)) for each in plans]
    twins, has_sites = [each.twin for each in plans], bool(len(dataset.transfer))
    names = [*labels, Contender.UNTAUGHT if has_sites else Contender.TWIN]

    def taken(contenders: Sequence[Contender]) -> Take:
        return "best" if epochs is None else tuple(epochs[name] for name in contenders for _ in plans)

    network, progress = train_students(
        dataset,
        [part.taught for part in labels.values()],
        [*taught, *twins],
        recipe,
        seed=seed,
        held_out=[part.validation for part in labels.values()],
        gate=gates,
        states=states,
        checkpoint=checkpoints("students"),
        on_epoch=reports("students"),
        take=taken(names),
    )
    members = {name: slice(place * replicates, (place + 1) * replicates) for place, name in enumerate(names)}
    indices = range(len(names) * replicates)
    networks = {name: select_members(network, dataset.scalers, list(indices[at])) for name, at in members.items()}
    if has_sites:
        train = partial(_train_alone, dataset.alone(), twins, recipe, seed=seed, take=taken([Contender.TWIN]))
        networks[Contender.TWIN], of_twins = train(checkpoint=checkpoints("twins"), on_epoch=reports("twins"))
        members[Contender.TWIN] = slice(len(indices), len(indices) + replicates)
        progress = join_progress(progress, of_twins)
    return TrainedStudents(networks, progress, members, gates)


def _train_alone(
    dataset: WindowDataset,
    twins: Sequence[StudentPlan],
    recipe: Recipe,
    *,
    seed: int,
    take: Take,
    checkpoint: Path | None,
    on_epoch: Callable[[Progress], None],
) -> tuple[Forecaster, Progress]:
    """Twins in a training of their own."""
    labels = [uniform_labels(dataset)]
    return train_students(
        dataset, labels, twins, recipe, seed=seed, take=take, checkpoint=checkpoint, on_epoch=on_epoch
    )
