"""Twins and what they could have been taught, on one learning task: what the benchmarks on real data measure.

The recipe is the pipeline's default. Its teachers teach students of several seeds; so do, as controls, as many networks
without privilege, and the recipe's teachers with shuffled privileged values (placebo). Students of one seed and their
twin share first weights, batches and dropout; from seed to seed all three differ, the teachers and their gates alone
are the same.
Nothing is chosen but the epoch, on validation.
"""

import ast
import datetime as dt
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from tutelage.baselines import seasonal_naive
from tutelage.dataset import DatasetSpec, load_dataset_spec, source_files
from tutelage.distillation import Task, mean_labels, soft_labels, train_teacher
from tutelage.files import file_digest, value_digest, written_whole
from tutelage.gating import find_gates
from tutelage.heads import QUANTILE_LEVELS, fit_bins, quantiles_of
from tutelage.metrics import Forecasts, crps
from tutelage.networks import fit_scalers
from tutelage.quality import clean
from tutelage.readings import read_readings
from tutelage.recipe import Recipe, Views
from tutelage.resample import hourly_table, minutes_of_hours
from tutelage.students import forecast_students, plan_student, train_students
from tutelage.windows import Panel, make_panel, split, window_origins

QUICK = os.environ.get("QUICK") == "1"
LOOKBACK_HOURS = {1: 24, 24: 168}
"""Of the students, by horizon."""
ORIGINS = 1 if QUICK else 3
SEEDS = 2 if QUICK else 5
SEASONS = (24, 168)
RECIPE = Recipe(teachers=2) if QUICK else Recipe()


MOST_WINDOWS = 10_000
THINNED_HOURS = 5
"""Of more training windows those of every fifth hour are taken: 5 and 24 share no divisor, so all hours of the day."""


@dataclass(frozen=True)
class Cell:
    """One cell at one origin: hours ahead, days of history (None: all), which of the last test parts (0 the last)."""

    horizon: int
    history: int | None
    origin: int

    @property
    def name(self) -> str:
        """The cell's name: 24h-100d."""
        return f"{self.horizon}h-{'all' if self.history is None else f'{self.history}d'}"


def _placebo(views: Views) -> Views:
    return views.model_copy(update={"placebo": views.any})


TAUGHT_BY = {
    "privileged": RECIPE,
    "no_privilege": RECIPE.without_privilege,
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


def load_series(spec_path: Path) -> tuple[Panel, DatasetSpec, dt.datetime, dt.datetime]:
    """A dataset's hourly panel, its spec, its first hour and the end of its last, with all bad values masked."""
    spec = load_dataset_spec(spec_path)
    grid = clean(read_readings(source_files(spec.source), spec), spec)
    hours = hourly_table(grid, spec)
    first, last = hours["time_utc"][0], hours["time_utc"][-1]
    return make_panel(hours, minutes_of_hours(grid, hours, spec), spec), spec, first, last + dt.timedelta(hours=1)


def make_task(panel: Panel, cell: Cell, first: dt.datetime, end: dt.datetime, *, test_days: int) -> tuple[Task, Tensor]:
    """The learning task of a cell and the origins of its test windows."""
    lookback = LOOKBACK_HOURS[cell.horizon]
    parts = split(
        end - dt.timedelta(days=cell.origin * test_days),
        start=first,
        history_days=cell.history,
        validation_share=0.2,
        test_days=test_days,
    )
    train, validation, test = (
        window_origins(panel, span, lookback=lookback, horizon=cell.horizon)
        for span in (parts.train, parts.validation, parts.test)
    )
    if len(train) > MOST_WINDOWS:
        train = train[panel.hour[train] % THINNED_HOURS == 0]
    inside = (panel.hour >= parts.train.hours.start) & (panel.hour < parts.train.hours.stop)
    bins = fit_bins(panel.observed[inside, 0].numpy(), RECIPE.bins)
    return Task(panel, lookback, cell.horizon, train, validation, fit_scalers(panel, parts.train), bins), test


def measure_pairs(task: Task, test: Tensor, *, seed: int) -> dict[str, np.ndarray]:
    """CRPS by test window of each kind of student (mean over seeds), of the teacher and of seasonal naive."""
    actual = task.truth(test).numpy().astype(np.float64)
    losses, soft, unseen = {"hour": task.panel.hour[test].numpy()}, [], []
    for name, taught in TAUGHT_BY.items():
        told, held_out, judged = [], [], []
        for own in taught.by_view():
            teacher, _ = train_teacher(task, own, seed=seed)
            told.append(soft_labels(teacher, task, task.train, own, seed=seed))
            held_out.append(soft_labels(teacher, task, task.validation, own, seed=seed))
            if name == "privileged":
                judged.append(soft_labels(teacher, task, test, own, seed=seed))
        soft.append(mean_labels(told))
        unseen.append(mean_labels(held_out))
        if judged:
            losses["teacher"] = _crps(mean_labels(judged).exp(), task, actual)
    labels, by_seed = torch.stack(soft), []
    gates = find_gates(task, RECIPE, labels, torch.stack(unseen), seed=seed)
    assert gates is not None
    losses |= {f"{name}_gate": gate.squeeze(0).numpy() for name, gate in zip(TAUGHT_BY, gates, strict=True)}
    for own in range(SEEDS):
        plan = plan_student(task, RECIPE, seed=own)
        plans = [plan.twin, *(plan.model_copy(update={"soft": place}) for place in range(len(TAUGHT_BY)))]
        students, _ = train_students(task, labels, plans, RECIPE, seed=own, gate=gates)
        by_seed.append([crps(own, actual).mean(axis=1) for own in forecast_students(students, task, test)])
    for kind, of_seeds in zip(KINDS, np.array(by_seed).swapaxes(0, 1), strict=True):
        losses[kind] = of_seeds.mean(axis=0)
        losses[f"{kind}_by_seed"] = of_seeds.mean(axis=1)
    for season in SEASONS:
        naive = seasonal_naive(task.panel, task.train, test, horizon=task.horizon, season=season)
        losses[f"seasonal_naive_{season}h"] = crps(naive, actual).mean(axis=1)
    losses["n_train"] = np.array(len(task.train))
    return losses


def kept(path: Path, measure: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What was measured into a file, whole or not at all; measured now where the file is not there.

    One thread: it is the pieces that run side by side.
    """
    if not path.exists():
        torch.set_num_threads(1)
        begun = time.perf_counter()
        with written_whole(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **measure())  # type: ignore[arg-type]
        print(f"  {path.stem}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    with np.load(path) as file:
        return dict(file)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979) of some p-values."""
    return dict(zip(p, multipletests(list(p.values()), method="holm")[1].tolist(), strict=True)) if p else {}


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
