"""Hourly students of ETT's oil temperature, by the pipeline's default recipe: what `benchmarks.ett` measures second.

The target is OT, chosen before looking: the field's own target. The student sees its hourly means, the teacher its
15-minute readings, the six loads and the noised future besides. The days that the file fills are masked. The test parts
are the last three times 60 days of the file, back to back; the validation part is the last 20 % of the history. Nothing
is chosen but the epoch, on validation.
"""

import datetime as dt
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tutelage.baselines import seasonal_naive
from tutelage.dataset import DatasetSpec, load_dataset_spec, source_files
from tutelage.distillation import Task, soft_labels, train_students, train_teacher
from tutelage.heads import QUANTILE_LEVELS, fit_bins, quantiles_of
from tutelage.metrics import Forecasts, crps
from tutelage.networks import fit_scalers
from tutelage.quality import clean
from tutelage.readings import read_readings
from tutelage.recipe import Recipe, StudentPlan, Views
from tutelage.resample import hourly_table, minutes_of_hours
from tutelage.windows import Panel, make_panel, split, window_origins

SPEC = Path(__file__).parent.parent / "deployments" / "datasets" / "ett.yaml"
QUICK = os.environ.get("QUICK") == "1"
LOOKBACK_HOURS = {1: 24, 24: 168}
HISTORIES = (50,) if QUICK else (50, 100, 200)
ORIGINS = 1 if QUICK else 3
SEEDS = 2 if QUICK else 5
TEST_DAYS = 60
VIEWS = {
    "privileged": Views(),
    "no_privilege": Views(future_sigma=None, minutes_hours=0, auxiliary=False),
    "placebo": Views(placebo=True),
}

KINDS = ("twin", *VIEWS)


@dataclass(frozen=True)
class Cell:
    """Hours ahead, days of history, which of the last test parts (0 the last)."""

    horizon: int
    history: int
    origin: int

    @property
    def name(self) -> str:
        """The cell's name: 24h-100d."""
        return f"{self.horizon}h-{self.history}d"


def cells() -> list[Cell]:
    """All cells, the short histories first."""
    return [Cell(h, days, origin) for days in HISTORIES for h in LOOKBACK_HOURS for origin in range(ORIGINS)]


@cache
def load_transformer() -> tuple[Panel, DatasetSpec, dt.datetime, dt.datetime]:
    """The transformer's hourly panel, its spec, its first hour and the end of its last, frozen days masked."""
    spec = load_dataset_spec(SPEC)
    grid = clean(read_readings(source_files(spec.source), spec), spec)
    hours = hourly_table(grid, spec)
    first, last = hours["time_utc"][0], hours["time_utc"][-1]
    return make_panel(hours, minutes_of_hours(grid, hours, spec), spec), spec, first, last + dt.timedelta(hours=1)


def make_task(panel: Panel, cell: Cell, first: dt.datetime, end: dt.datetime, recipe: Recipe) -> tuple[Task, Tensor]:
    """The learning task of a cell and the origins of its test windows."""
    lookback = LOOKBACK_HOURS[cell.horizon]
    parts = split(
        end - dt.timedelta(days=cell.origin * TEST_DAYS),
        start=first,
        history_days=cell.history,
        validation_share=0.2,
        test_days=TEST_DAYS,
    )
    train, validation, test = (
        window_origins(panel, span, lookback=lookback, horizon=cell.horizon)
        for span in (parts.train, parts.validation, parts.test)
    )
    inside = (panel.hour >= parts.train.hours.start) & (panel.hour < parts.train.hours.stop)
    bins = fit_bins(panel.observed[inside, 0].numpy(), recipe.bins)
    scalers = fit_scalers(panel, parts.train)
    return Task(panel, lookback, cell.horizon, train, validation, scalers, bins), test


def _crps(probabilities: Tensor, task: Task, actual: np.ndarray) -> np.ndarray:
    edges = task.edges()
    quantiles = quantiles_of(probabilities, edges, edges.new_tensor(QUANTILE_LEVELS)).double().numpy()
    return crps(Forecasts(quantiles.mean(axis=-1), quantiles), actual).mean(axis=1)


def measure_cell(cell: Cell) -> dict[str, np.ndarray]:
    """CRPS by test window of each kind of student (mean over seeds), of the teacher and of seasonal naive."""
    panel, _, first, end = load_transformer()
    recipe = Recipe(teachers=2) if QUICK else Recipe()
    task, test = make_task(panel, cell, first, end, recipe)
    actual = task.truth(test).numpy().astype(np.float64)
    losses, soft = {"hour": panel.hour[test].numpy()}, []
    for name, views in VIEWS.items():
        taught = recipe.model_copy(update={"views": views})
        teacher, _ = train_teacher(task, taught, seed=cell.origin)
        soft.append(soft_labels(teacher, task, task.train, taught, seed=cell.origin))
        if name == "privileged":
            losses["teacher"] = _crps(soft_labels(teacher, task, test, taught, seed=cell.origin).exp(), task, actual)
    plan = StudentPlan(alpha=recipe.alpha, temperature=recipe.temperature, dropout=recipe.student_budget.dropout)
    plans = [plan.model_copy(update={"seed": seed}).twin for seed in range(SEEDS)]
    plans += [plan.model_copy(update={"seed": s, "soft": place}) for place in range(len(VIEWS)) for s in range(SEEDS)]
    students, _ = train_students(task, torch.stack(soft), plans, recipe, seed=cell.origin)
    with torch.no_grad():
        outputs = torch.cat([students(*task.student_inputs(some)).softmax(-1) for some in test.split(1024)], dim=1)
    by_kind = np.array([_crps(member, task, actual) for member in outputs]).reshape(len(KINDS), SEEDS, -1)
    for kind, of_seeds in zip(KINDS, by_kind, strict=True):
        losses[kind] = of_seeds.mean(axis=0)
        losses[f"{kind}_by_seed"] = of_seeds.mean(axis=1)
    naive = seasonal_naive(panel, task.train, test, horizon=cell.horizon, season=24)
    losses["seasonal_naive_24h"] = crps(naive, actual).mean(axis=1)
    losses["n_train"] = np.array(len(task.train))
    return losses
