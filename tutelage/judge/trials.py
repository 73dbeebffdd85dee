"""The trials of a study: recipes of one forecaster, all combinations of a space of settings.

Trials with the same teacher recipe share the teacher; trials with the same student share the twin. Trials that share
teacher and budget train side by side.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from tutelage.contract import Contract
from tutelage.distil.plans import make_plan
from tutelage.distil.recipe import Recipe, student_part, teacher_part
from tutelage.distil.terms import Terms
from tutelage.errors import SpecError
from tutelage.judge.choice import TrialKind

AXES = {
    "alpha": "distillation.alpha",
    "temperature": "distillation.temperature",
    "future_sigma": "teacher.views.future_sigma",
    "minutes_hours": "teacher.views.minutes_hours",
    "auxiliary": "teacher.views.auxiliary",
    "dropout": "student.training.dropout",
    "learning_rate": "student.training.learning_rate",
    "weight_decay": "student.training.weight_decay",
}
"""The settings that a study can vary, and their dotted names in a recipe."""

SHORT = {"alpha": "α", "temperature": "T", "future_sigma": "σ", "minutes_hours": "hours", "learning_rate": "rate"}
"""Short names of axes in a trial's name, because tables cut long names off."""

STUDENT_AXES = ("dropout", "learning_rate", "weight_decay")
"""Axes that also apply to a twin, so that it is tuned like its students."""

LEFT_OUT = {
    "distillation.gate": "none",
    "distillation.unlabelled": False,
    "teacher.registered_model": None,
    "teacher.other_sites": None,
}
"""Settings that a study does not support, with the value that a study uses.
The default gate is replaced silently, because a study varies alpha itself."""


class Space(Contract):
    """The values of each setting to combine with all others. Empty: the recipe's value."""

    alpha: tuple[float, ...] = Field(
        (0.5, 0.9, 1.0), description="Weights of the teacher's soft labels. 0, the twin, is always included."
    )
    temperature: tuple[float, ...] = Field((), description="Temperatures of teacher and student in the soft loss.")
    future_sigma: tuple[float | None, ...] = Field(
        (1.0, 2.0, 3.0),
        description="Noise on the teacher's future, in standard deviations; null: no future.",
    )
    minutes_hours: tuple[int, ...] = Field((), description="Numbers of past hours whose raw readings the teacher sees.")
    auxiliary: tuple[bool, ...] = Field((), description="Whether the teacher sees the past of the privileged columns.")
    dropout: tuple[float, ...] = Field((), description="Dropout rates of student and twin.")
    learning_rate: tuple[float, ...] = Field((), description="Learning rates of AdamW for student and twin.")
    weight_decay: tuple[float, ...] = Field((), description="Weight decays of AdamW for student and twin.")


Setting = float | int | bool | None


@dataclass(frozen=True)
class Trial:
    """One recipe of a study, or the average of several.

    settings: its values of AXES; settings that don't apply are left out
    teachers: its teachers as recipes from `teacher_part`; several are averaged; a twin has none
    twin: the name of the same trial without a teacher
    """

    name: str
    kind: TrialKind
    recipe: Recipe
    settings: dict[str, Setting]
    teachers: tuple[Recipe, ...]
    twin: str


def _value(recipe: Recipe, path: str) -> Any:
    """The value under a dotted name."""
    value: Any = recipe
    for name in path.split("."):
        value = getattr(value, name)
    return value


def side_by_side(recipe: Recipe) -> Recipe:
    """The part of a recipe that must be equal for students to train side by side: `student_part` without the plan."""
    budget = recipe.student.training.model_copy(update={"dropout": 0.0})
    return _untaught(student_part(recipe)).override({"student.training": budget})


def _named(settings: dict[str, Setting], varied: Sequence[str], what: str = "") -> str:
    """The settings that distinguish a trial from the others: `α 0.9, σ 2`."""
    shown = [
        f"{SHORT.get(name, name.replace('_', ' '))} {_text(settings[name])}" for name in varied if name in settings
    ]
    return ", ".join([what, *shown] if what else shown)


def _text(value: Setting) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "no" if value is False else "none"
    return f"{value:g}"


def _untaught(recipe: Recipe) -> Recipe:
    return recipe.override({"distillation.alpha": 0.0, "distillation.temperature": 1.0, "distillation.terms": Terms()})


def list_trials(recipe: Recipe, space: Space, *, max_trials: int | None, seed: int) -> list[Trial]:
    """The trials of a study: twins first, then single recipes, then the averages.

    Single recipes are all combinations of the space, or `max_trials` of them, drawn by the seed without replacement.
    Each has a twin: the same student and budget, α = 0. For each twin with two or more recipes there is an average: one
    student trained on the mean of their teachers' soft labels, with their mean α and temperature.

    Raises SpecError where a value is not valid in a recipe, no trial has a teacher, or the recipe has one of LEFT_OUT.
    """
    for path, without in LEFT_OUT.items():
        if _value(recipe, path) not in (_value(Recipe(), path), without):
            raise SpecError(f"a study can't have recipe.{path}: leave it out")
    axes = {axis: getattr(space, axis) or (_value(recipe, path),) for axis, path in AXES.items()}
    varied = [axis for axis in AXES if axis == "alpha" or len(set(axes[axis])) > 1]
    chosen = _combinations(recipe, axes)
    if max_trials is not None and max_trials < len(chosen):
        chosen = [chosen[place] for place in sorted(random.Random(seed).sample(range(len(chosen)), max_trials))]
    twins: dict[Recipe, Trial] = {}
    singles: list[Trial] = []
    for single, settings in chosen:
        untaught = student_part(_untaught(single))
        if untaught not in twins:
            shared: dict[str, Setting] = {"alpha": 0.0, **{axis: settings[axis] for axis in STUDENT_AXES}}
            name = _named(shared, [axis for axis in varied if axis != "alpha"], "twin")
            twin = recipe.override({"student": untaught.student, "distillation": untaught.distillation})
            twins[untaught] = Trial(name, "twin", twin, shared, (), name)
        name = _named(settings, varied)
        singles.append(Trial(name, "single", single, settings, (teacher_part(single),), twins[untaught].name))
    return [*twins.values(), *singles, *_averages(singles, list(twins.values()), varied)]


def _combinations(recipe: Recipe, axes: dict[str, tuple[Setting, ...]]) -> list[tuple[Recipe, dict[str, Setting]]]:
    """All distinct recipes from the axes' values, with the settings of each; twins are left out."""
    combined: dict[Recipe, dict[str, Setting]] = {}
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        single = _with_settings(recipe, settings)
        if make_plan(single, seed=0).taught:
            combined.setdefault(single, settings)
    if not combined:
        raise SpecError("a study with only alpha 0 has no teacher: add an alpha above 0")
    return list(combined.items())


def varied_axes(trials: Sequence[Trial]) -> list[str]:
    """The axes that distinguish trials: α, and each setting that single recipes differ in."""
    singles = [trial.settings for trial in trials if trial.kind == "single"]
    return [axis for axis in AXES if axis == "alpha" or len({settings[axis] for settings in singles}) > 1]


def _with_settings(recipe: Recipe, settings: dict[str, Setting]) -> Recipe:
    for axis, value in settings.items():
        try:
            recipe = Recipe.model_validate(recipe.override({AXES[axis]: value}).model_dump())
        except ValueError as error:
            raise SpecError(f"a study can't vary {axis} to {value}: {error}") from error
    return recipe


def _averages(singles: list[Trial], twins: list[Trial], varied: list[str]) -> list[Trial]:
    averages = []
    for twin in twins:
        mates = [trial for trial in singles if trial.twin == twin.name]
        if len(mates) < 2:
            continue
        mean = {
            axis: round(float(np.mean([getattr(trial.recipe.distillation, axis) for trial in mates])), 6)
            for axis in ("alpha", "temperature")
        }
        settings: dict[str, Setting] = {**mean, **{axis: twin.settings[axis] for axis in STUDENT_AXES}}
        teachers = tuple(dict.fromkeys(trial.teachers[0] for trial in mates))
        name = _named(settings, varied, "average")
        recipe = mates[0].recipe.override({AXES[axis]: value for axis, value in mean.items()})
        averages.append(Trial(name, "average", recipe, settings, teachers, twin.name))
    return averages


@dataclass(frozen=True)
class TrialGroup:
    """Trials whose students train side by side: they share the teachers and `side_by_side` of their recipes."""

    teachers: tuple[Recipe, ...]
    trials: tuple[Trial, ...]


def group_trials(trials: Sequence[Trial]) -> list[TrialGroup]:
    """The trials grouped by what they share, in their order."""
    groups: dict[tuple[tuple[Recipe, ...], Recipe], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.teachers, side_by_side(trial.recipe)), []).append(trial)
    return [TrialGroup(teachers, tuple(group)) for (teachers, _), group in groups.items()]
