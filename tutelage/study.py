"""A study: many recipes of one forecaster, each scored on the folds of its history.

A trial is one recipe. What trials share is trained once a fold: the teacher of all that have the same views and the
same teacher, the twin of all that have the same student. Those that share teacher and budget train side by side.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from tutelage.bodies import States
from tutelage.choice import Kind
from tutelage.dataset import Contract
from tutelage.distillation import Task
from tutelage.errors import SpecError
from tutelage.heads import QUANTILE_LEVELS, quantiles_of
from tutelage.metrics import Forecasts, crps
from tutelage.networks import Forecaster
from tutelage.recipe import Recipe, Terms
from tutelage.students import even_labels, forecast_students, make_plan, train_students

AXES = {
    "alpha": "alpha",
    "temperature": "temperature",
    "future_sigma": "views.future_sigma",
    "minutes_hours": "views.minutes_hours",
    "auxiliary": "views.auxiliary",
    "dropout": "student_budget.dropout",
    "learning_rate": "student_budget.learning_rate",
    "weight_decay": "student_budget.weight_decay",
}
"""What can be varied, and where it stands in a recipe."""

SHORT = {"alpha": "α", "temperature": "T", "future_sigma": "σ", "minutes_hours": "hours", "learning_rate": "rate"}
"""Short names of axes in a trial's name, which a table cuts off early."""

STUDENT_AXES = ("dropout", "learning_rate", "weight_decay")
"""Those that a twin has too: it is tuned as its students are."""

STUDENT_FIELDS = (
    "alpha",
    "few_alpha",
    "temperature",
    "terms",
    "horizon_decay",
    "student",
    "rolled",
    "head",
    "point_loss",
    "student_width",
    "student_budget",
)
TEACHER_FIELDS = (
    "views",
    "more_views",
    "bins",
    "teachers",
    "teacher",
    "teacher_horizons",
    "teacher_width",
    "draws",
    "teacher_budget",
)
"""Fields of a recipe, by who changes where they do."""

LEFT_OUT = ("gate", "unlabelled", "teacher_model")
"""Fields that a study can't have: they need more than a fold's soft labels. The default gate is left out without a
word: how far a teacher is trusted is what a study's values of alpha ask."""


class Space(Contract):
    """What is varied: the values of each setting, crossed with those of all others. Empty: the recipe's own value."""

    alpha: tuple[float, ...] = Field(
        (0.5, 0.9, 1.0), description="Weights of the teacher's soft labels. 0, the twin, is always there beside them."
    )
    temperature: tuple[float, ...] = Field((), description="Softening of teacher and student in the soft loss.")
    future_sigma: tuple[float | None, ...] = Field(
        (1.0, 2.0, 3.0), description="Noise on the teacher's future, in standard deviations; null: no future."
    )
    minutes_hours: tuple[int, ...] = Field((), description="Past hours whose raw readings the teacher sees.")
    auxiliary: tuple[bool, ...] = Field((), description="Whether the teacher sees the privileged columns' past.")
    dropout: tuple[float, ...] = Field((), description="Dropout of student and twin.")
    learning_rate: tuple[float, ...] = Field((), description="AdamW's step size, student and twin.")
    weight_decay: tuple[float, ...] = Field((), description="AdamW's weight decay, student and twin.")


Setting = float | int | bool | None


@dataclass(frozen=True)
class Trial:
    """One recipe of a study, or the average of many.

    settings: the values of AXES that it is known by; what it has none of is left out
    teachers: what it is taught by, as recipes of `teacher_part`; several are averaged; a twin has none
    twin: the name of the trial that differs from it in what it is taught alone
    """

    name: str
    kind: Kind
    recipe: Recipe
    settings: dict[str, Setting]
    teachers: tuple[Recipe, ...]
    twin: str


def _with(recipe: Recipe, path: str, value: object) -> Recipe:
    """The recipe with another value, checked as if it had been written so."""
    first, _, rest = path.partition(".")
    inner = recipe.model_dump()
    if rest:
        inner[first][rest] = value
    else:
        inner[first] = value
    return Recipe.model_validate(inner)


def _value(recipe: Recipe, axis: str) -> Setting:
    value: object = recipe
    for name in AXES[axis].split("."):
        value = getattr(value, name)
    assert value is None or isinstance(value, int | float)
    return value


def teacher_part(recipe: Recipe) -> Recipe:
    """The recipe with nothing of its student's: equal ones have the same teacher."""
    return Recipe().model_copy(update={name: getattr(recipe, name) for name in TEACHER_FIELDS})


def student_part(recipe: Recipe) -> Recipe:
    """The recipe with nothing of its teacher's: all that training the student asks of it, beside the soft labels."""
    return Recipe().model_copy(update={name: getattr(recipe, name) for name in STUDENT_FIELDS})


def side_by_side(recipe: Recipe) -> Recipe:
    """What must be equal in recipes whose students train side by side: all of `student_part` that no plan holds."""
    budget = recipe.student_budget.model_copy(update={"dropout": 0.0})
    return student_part(recipe).model_copy(
        update={"alpha": 0.0, "temperature": 1.0, "terms": Terms(), "student_budget": budget}
    )


def _named(settings: dict[str, Setting], varied: Sequence[str], what: str = "") -> str:
    """`α 0.9, σ 2`: the settings that tell a trial from the others."""
    shown = [
        f"{SHORT.get(name, name.replace('_', ' '))} {_text(settings[name])}" for name in varied if name in settings
    ]
    return ", ".join([what, *shown] if what else shown)


def _text(value: Setting) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "no" if value is False else "none"
    return f"{value:g}"


def _untaught(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"alpha": 0.0, "temperature": 1.0, "terms": Terms()})


def list_trials(recipe: Recipe, space: Space, *, draws: int | None, seed: int) -> list[Trial]:
    """The trials of a study: twins first, then single recipes, then for each twin the average of its students.

    Single recipes are all combinations of the space, or `draws` of them, drawn by the seed without putting back. Each
    has its twin: the same student and budget, α = 0. The average, of two or more recipes, is one student: taught by the
    mean of their teachers' soft labels, with their mean α and temperature.

    Raises SpecError where a value can't be in a recipe, nothing is taught at all, or the recipe has one of LEFT_OUT.
    """
    for name in LEFT_OUT:
        if getattr(recipe, name) not in (Recipe.model_fields[name].default, "none"):
            raise SpecError(f"a study can't have recipe.{name}: leave it out")
    axes = {axis: getattr(space, axis) or (_value(recipe, axis),) for axis in AXES}
    varied = [axis for axis in AXES if axis == "alpha" or len(set(axes[axis])) > 1]
    combinations: dict[Recipe, dict[str, Setting]] = {}
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        made = _made(recipe, settings)
        if make_plan(made, seed=0).taught:
            combinations.setdefault(made, settings)
    if not combinations:
        raise SpecError("a study with alpha 0 alone teaches nothing: name an alpha above 0")
    chosen = list(combinations.items())
    if draws is not None and draws < len(chosen):
        chosen = [chosen[place] for place in sorted(random.Random(seed).sample(range(len(chosen)), draws))]
    twins: dict[Recipe, Trial] = {}
    singles: list[Trial] = []
    for made, settings in chosen:
        alone = student_part(_untaught(made))
        if alone not in twins:
            own: dict[str, Setting] = {"alpha": 0.0, **{axis: settings[axis] for axis in STUDENT_AXES}}
            name = _named(own, [axis for axis in varied if axis != "alpha"], "twin")
            twin = recipe.model_copy(update={name: getattr(alone, name) for name in STUDENT_FIELDS})
            twins[alone] = Trial(name, "twin", twin, own, (), name)
        name = _named(settings, varied)
        singles.append(Trial(name, "single", made, settings, (teacher_part(made),), twins[alone].name))
    return [*twins.values(), *singles, *_averages(singles, list(twins.values()), varied)]


def varied_axes(trials: Sequence[Trial]) -> list[str]:
    """What tells the trials apart: α, and each setting that single recipes differ in."""
    singles = [trial.settings for trial in trials if trial.kind == "single"]
    return [axis for axis in AXES if axis == "alpha" or len({settings[axis] for settings in singles}) > 1]


def _made(recipe: Recipe, settings: dict[str, Setting]) -> Recipe:
    for axis, value in settings.items():
        try:
            recipe = _with(recipe, AXES[axis], value)
        except ValueError as error:
            raise SpecError(f"a study can't vary {axis} to {value}: {error}") from error
    return recipe


def _averages(singles: list[Trial], twins: list[Trial], varied: list[str]) -> list[Trial]:
    found = []
    for twin in twins:
        mates = [trial for trial in singles if trial.twin == twin.name]
        if len(mates) < 2:
            continue
        mean = {
            axis: round(float(np.mean([getattr(trial.recipe, axis) for trial in mates])), 6)
            for axis in ("alpha", "temperature")
        }
        settings: dict[str, Setting] = {**mean, **{axis: twin.settings[axis] for axis in STUDENT_AXES}}
        teachers = tuple(dict.fromkeys(trial.teachers[0] for trial in mates))
        name = _named(settings, varied, "average")
        recipe = mates[0].recipe.model_copy(update=mean)
        found.append(Trial(name, "average", recipe, settings, teachers, twin.name))
    return found


@dataclass(frozen=True)
class Lesson:
    """Trials whose students train side by side: they have the same teachers and all that no plan holds."""

    teachers: tuple[Recipe, ...]
    trials: tuple[Trial, ...]


def list_lessons(trials: Sequence[Trial]) -> list[Lesson]:
    """The trials by what they can share, in their order."""
    groups: dict[tuple[tuple[Recipe, ...], Recipe], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.teachers, side_by_side(trial.recipe)), []).append(trial)
    return [Lesson(teachers, tuple(group)) for (teachers, _), group in groups.items()]


def side_by_side_states(states: Sequence[States]) -> States:
    """Several teachers' states as one's: hidden states and tokens side by side, attention maps averaged."""
    maps = [one.maps for one in states if one.maps is not None]
    tokens = [one.tokens for one in states if one.tokens is not None]
    return States(
        hidden=torch.cat([one.hidden for one in states], dim=-1),
        tokens=torch.cat(tokens, dim=-1) if tokens else None,
        maps=torch.stack(maps).mean(dim=0) if maps else None,
    )


def labels_crps(soft: Float[Tensor, "windows horizon bins"], task: Task, origins: Int64[Tensor, " windows"]) -> float:
    """Mean CRPS of a teacher's soft labels of these windows, in the target's unit."""
    edges = task.edges()
    quantiles = quantiles_of(soft.exp(), edges, edges.new_tensor(QUANTILE_LEVELS)).double().cpu().numpy()
    actual = task.truth(origins).double().cpu().numpy()
    return float(crps(Forecasts(quantiles.mean(axis=-1), quantiles), actual).mean())


def students_crps(
    students: Forecaster, task: Task, origins: Int64[Tensor, " windows"], *, chunk: int = 1024
) -> list[float]:
    """Mean CRPS over these windows and their hours of each student side by side, in the target's unit."""
    actual = task.truth(origins).double().cpu().numpy()
    return [float(crps(own, actual).mean()) for own in forecast_students(students, task, origins, chunk=chunk)]


def score_lesson(
    task: Task,
    scored: Int64[Tensor, " windows"],
    recipes: Sequence[Recipe],
    *,
    soft: Float[Tensor, "train horizon bins"] | None,
    states: States | None = None,
    seeds: Sequence[int],
    seed: int,
    checkpoint: Path | None = None,
) -> Float[np.ndarray, "recipes seeds"]:
    """Train the students of recipes that can train side by side, once a seed, and return their CRPS on `scored`.

    soft: what teaches them all; None: nobody does, they are twins
    seeds: of the first weights and the dropout of each student; `seed` is that of the batches, the same for all: what
    is trained in another lesson of the same task with the same seeds starts and goes the same way

    Raises ValueError where the recipes can't train side by side.
    """
    if len({side_by_side(recipe) for recipe in recipes}) != 1:
        raise ValueError(f"the students of {len(recipes)} recipes can't train side by side")
    plans = [make_plan(recipe, seed=own) for recipe in recipes for own in seeds]
    if soft is None:
        if any(plan.taught for plan in plans):
            raise ValueError("a student can't be taught without soft labels")
        soft = even_labels(task)
    students, _ = train_students(
        task,
        soft[None],
        plans,
        recipes[0],
        seed=seed,
        states=states,
        checkpoint=checkpoint,
    )
    return np.array(students_crps(students, task, scored)).reshape(len(recipes), len(seeds))
