"""Twins and what they could have been taught, on one learning task: what the benchmarks on real data measure.

The recipe is the pipeline's default. Its teachers teach students of several seeds; so do, as controls, as many networks
without privilege, and the recipe's teachers with shuffled privileged values (placebo). Students of one seed and their
twin share first weights, batches and dropout. Nothing is chosen but the epoch, on validation.
"""

import ast
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tutelage.baselines import seasonal_naive
from tutelage.distillation import Task, mean_labels, soft_labels, train_teacher
from tutelage.files import file_digest, value_digest
from tutelage.heads import QUANTILE_LEVELS, quantiles_of
from tutelage.metrics import Forecasts, crps
from tutelage.networks import Forecaster
from tutelage.recipe import BLIND, Recipe, Views
from tutelage.students import plan_student, train_students

QUICK = os.environ.get("QUICK") == "1"
LOOKBACK_HOURS = {1: 24, 24: 168}
"""Of the students, by horizon."""
ORIGINS = 1 if QUICK else 3
SEEDS = 2 if QUICK else 5
SEASONS = (24, 168)
RECIPE = Recipe(teachers=2) if QUICK else Recipe()


def _placebo(views: Views) -> Views:
    return views.model_copy(update={"placebo": views.any})


TAUGHT_BY = {
    "privileged": RECIPE,
    "no_privilege": RECIPE.model_copy(
        update={"views": BLIND, "more_views": (), "teachers": RECIPE.teachers * len(RECIPE.by_view())}
    ),
    "placebo": RECIPE.model_copy(
        update={"views": _placebo(RECIPE.views), "more_views": tuple(map(_placebo, RECIPE.more_views))}
    ),
}
"""The recipe, and its controls: as many networks that see nothing more, or other windows' privileged values."""
KINDS = ("twin", *TAUGHT_BY)


def _crps(probabilities: Tensor, task: Task, actual: np.ndarray) -> np.ndarray:
    """CRPS of each window (its mean over the horizon) of a forecast as probabilities of bins."""
    edges = task.edges()
    quantiles = quantiles_of(probabilities, edges, edges.new_tensor(QUANTILE_LEVELS)).double().numpy()
    return crps(Forecasts(quantiles.mean(axis=-1), quantiles), actual).mean(axis=1)


@torch.no_grad()
def _student_losses(students: Forecaster, task: Task, test: Tensor, actual: np.ndarray) -> list[np.ndarray]:
    students.eval()
    parts = [students(*task.student_inputs(some)).softmax(dim=-1) for some in test.split(1024)]
    return [_crps(member, task, actual) for member in torch.cat(parts, dim=1)]


def measure_pairs(task: Task, test: Tensor, *, seed: int) -> dict[str, np.ndarray]:
    """CRPS by test window of each kind of student (mean over seeds), of the teacher and of seasonal naive."""
    actual = task.truth(test).numpy().astype(np.float64)
    losses, soft = {"hour": task.panel.hour[test].numpy()}, []
    for name, taught in TAUGHT_BY.items():
        told, judged = [], []
        for own in taught.by_view():
            teacher, _ = train_teacher(task, own, seed=seed)
            told.append(soft_labels(teacher, task, task.train, own, seed=seed))
            if name == "privileged":
                judged.append(soft_labels(teacher, task, test, own, seed=seed))
        soft.append(mean_labels(told))
        if judged:
            losses["teacher"] = _crps(mean_labels(judged).exp(), task, actual)
    plans = [plan_student(task, RECIPE, seed=own) for own in range(SEEDS)]
    plans = [
        *(plan.twin for plan in plans),
        *(plan.model_copy(update={"soft": place}) for place in range(len(TAUGHT_BY)) for plan in plans),
    ]
    students, _ = train_students(task, torch.stack(soft), plans, RECIPE, seed=seed)
    by_plan = np.array(_student_losses(students, task, test, actual)).reshape(len(KINDS), SEEDS, -1)
    for kind, of_seeds in zip(KINDS, by_plan, strict=True):
        losses[kind] = of_seeds.mean(axis=0)
        losses[f"{kind}_by_seed"] = of_seeds.mean(axis=1)
    for season in SEASONS:
        naive = seasonal_naive(task.panel, task.train, test, horizon=task.horizon, season=season)
        losses[f"seasonal_naive_{season}h"] = crps(naive, actual).mean(axis=1)
    losses["n_train"] = np.array(len(task.train))
    return losses


def code_digest() -> str:
    """Digest of this module and of all that it needs of the core: a piece measured by other code is measured again."""
    needed: set[Path] = set()
    _add_needed(Path(__file__), needed)
    return value_digest([file_digest(path) for path in sorted(needed)])


def _add_needed(file: Path, needed: set[Path]) -> None:
    if file in needed:
        return
    needed.add(file)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tutelage."):
            spec = find_spec(node.module)
            assert spec is not None
            assert spec.origin is not None
            _add_needed(Path(spec.origin), needed)
