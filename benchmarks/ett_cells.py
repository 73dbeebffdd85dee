"""Hourly students of ETT's oil temperature, by the pipeline's default recipe: what `benchmarks.ett` measures second.

The target is OT, chosen before looking: the field's own target. The student sees its hourly means, the teacher its
15-minute readings, the six loads and the noised future besides. The days that the file fills are masked. The test parts
are the last three times 60 days of the file, back to back; the validation part is the last 20 % of the history. Nothing
is chosen but the epoch, on validation.
"""

import datetime as dt
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.pairs import LOOKBACK_HOURS, ORIGINS, QUICK, Cell, load_series, make_task, measure_pairs
from tutelage.dataset import DatasetSpec
from tutelage.windows import Panel

SPEC = Path(__file__).parent.parent / "deployments" / "datasets" / "ett.yaml"
HISTORIES = (50,) if QUICK else (50, 100, 200)
TEST_DAYS = 60


def cells() -> list[Cell]:
    """All cells, the short histories first."""
    return [Cell(h, days, origin) for days in HISTORIES for h in LOOKBACK_HOURS for origin in range(ORIGINS)]


@cache
def load_transformer() -> tuple[Panel, DatasetSpec, dt.datetime, dt.datetime]:
    """The transformer, read once a process, with its frozen days masked."""
    return load_series(SPEC)


def measure_cell(cell: Cell) -> dict[str, np.ndarray]:
    """All losses of a cell: `pairs.measure_pairs` on its task."""
    panel, _, first, end = load_transformer()
    task, test = make_task(panel, cell, first, end, test_days=TEST_DAYS)
    return measure_pairs(task, test, seed=cell.origin)
