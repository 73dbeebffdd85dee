"""Hourly students of ETT's oil temperature, by the pipeline's default recipe: what `benchmarks.ett` measures second.

The target is OT, chosen before looking: the field's own target. The student sees its hourly means, the teacher its
15-minute readings, the six loads and the noised future besides. The days that the file fills are masked. The test parts
are the last three times 60 days of the file, back to back; the validation part is the last 20 % of the history. Nothing
is chosen but the epoch, on validation.
"""

import datetime as dt
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.pairs import LOOKBACK_HOURS, ORIGINS, QUICK, RECIPE, measure_pairs
from tutelage.dataset import DatasetSpec, load_dataset_spec, source_files
from tutelage.distillation import Task
from tutelage.heads import fit_bins
from tutelage.networks import fit_scalers
from tutelage.quality import clean
from tutelage.readings import read_readings
from tutelage.recipe import Recipe
from tutelage.resample import hourly_table, minutes_of_hours
from tutelage.windows import Panel, make_panel, split, window_origins

SPEC = Path(__file__).parent.parent / "deployments" / "datasets" / "ett.yaml"
HISTORIES = (50,) if QUICK else (50, 100, 200)
TEST_DAYS = 60


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


def measure_cell(cell: Cell) -> dict[str, np.ndarray]:
    """All losses of a cell: `pairs.measure_pairs` on its task."""
    panel, _, first, end = load_transformer()
    task, test = make_task(panel, cell, first, end, RECIPE)
    return measure_pairs(task, test, seed=cell.origin)
