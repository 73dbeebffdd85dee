"""The household's cells: what `benchmarks.efficacy` and `benchmarks.teachers` measure.

Real minute data of one household, fills masked; the validation part is the last 20 % of the history. Tests are the last
360 days of the file, in three parts back to back, each with its own training before it; histories of up to 100 days,
cheap to train and more a matter of luck, have six parts.
"""

import datetime as dt
from functools import cache
from pathlib import Path

from benchmarks.common import LOOKBACK_HOURS, ORIGINS, QUICK, Cell, Losses, make_cell_dataset, measure_contenders
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.windows import LEAST_WINDOWS, Panel, read_panel
from tutelage.distil.dataset import WindowDataset

SPEC = Path(__file__).parent.parent / "deployments" / "datasets" / "household.yaml"
HISTORIES: tuple[int | None, ...] = (50, 100) if QUICK else (50, 100, 200, 400, None)
TESTED_DAYS = 360
SHORT_DAYS = 100
SHORT_ORIGINS = 1 if QUICK else 6


@cache
def load_household() -> tuple[Panel, dt.datetime, dt.datetime]:
    """The household, read once a process."""
    return read_panel(load_dataset_spec(SPEC))


def origins_of(history: int | None) -> int:
    """How many test parts a history is evaluated on."""
    return SHORT_ORIGINS if history is not None and history <= SHORT_DAYS else ORIGINS


def tested_days_of(history: int | None) -> int:
    """The length of each of these test parts, in days."""
    return TESTED_DAYS // (3 if QUICK else origins_of(history))


def dataset_of(cell: Cell) -> WindowDataset:
    """A cell's windows."""
    panel, first, end = load_household()
    return make_cell_dataset(panel, cell, first, end, test_days=tested_days_of(cell.history))


def every_cell() -> list[Cell]:
    """All cells at all of their origins, the short histories first."""
    return [
        Cell(horizon, days, origin)
        for days in HISTORIES
        for horizon in LOOKBACK_HOURS
        for origin in range(origins_of(days))
    ]


def measure_cell(cell: Cell) -> Losses:
    """All losses of a cell."""
    return measure_contenders(dataset_of(cell), seed=cell.origin)


@cache
def can_be_measured(cell: Cell) -> bool:
    """Whether all parts have as many windows as a retrain asks for: masked hours may leave a short one without any."""
    dataset = dataset_of(cell)
    return min(len(dataset.train), len(dataset.validation), len(dataset.test)) >= LEAST_WINDOWS
