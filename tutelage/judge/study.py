"""Scores of a study's trials on one fold: of a teacher's labels, and of students that train side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tutelage.distil.dataset import WindowDataset
from tutelage.distil.plans import make_plan
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SoftLabels, label_forecasts, uniform_labels
from tutelage.distil.students import forecast_students, train_students
from tutelage.forecasts import crps
from tutelage.judge.trials import side_by_side
from tutelage.judge.verdict import actual_values
from tutelage.model.architectures import States


def labels_crps(labels: SoftLabels, dataset: WindowDataset) -> float:
    """Mean CRPS of a teacher's soft labels, in the target's unit."""
    return float(crps(label_forecasts(labels, dataset.edges()), actual_values(dataset, labels.origins)).mean())


def score_group(
    dataset: WindowDataset,
    recipes: Sequence[Recipe],
    *,
    soft: SoftLabels | None,
    held_out: SoftLabels | None = None,
    states: States | None = None,
    seeds: Sequence[int],
    seed: int,
    checkpoint: Path | None = None,
) -> Float[np.ndarray, "recipes seeds"]:
    """Train one student per recipe and seed, side by side, and return their CRPS on the test part.

    soft: the soft labels of all; None: they are twins
    held_out: those of the validation part, for recipes whose students stop by them
    seeds: of each student's initial weights and dropout
    seed: of the batches. Groups of the same dataset with the same seeds start from the same weights and see the same
        batches

    Raises ValueError where the recipes can't train side by side, or a student needs soft labels and `soft` is None.
    """
    if len({side_by_side(recipe) for recipe in recipes}) != 1:
        raise ValueError(f"the students of {len(recipes)} recipes can't train side by side")
    plans = [make_plan(recipe, seed=start) for recipe in recipes for start in seeds]
    if soft is None:
        if any(plan.taught for plan in plans):
            raise ValueError("a student can't be taught without soft labels")
        soft = uniform_labels(dataset)
    students, _ = train_students(
        dataset,
        [soft],
        plans,
        recipes[0],
        seed=seed,
        held_out=None if held_out is None else [held_out],
        states=states,
        checkpoint=checkpoint,
    )
    actual = actual_values(dataset, dataset.test)
    scores = [float(crps(each, actual).mean()) for each in forecast_students(students, dataset, dataset.test)]
    return np.array(scores).reshape(len(recipes), len(seeds))
