"""Hourly students of ETT's oil temperature, by the pipeline's default recipe: what `benchmarks.ett` measures second.

The target is OT, chosen before looking: the field's own target. The student sees its hourly means, the teacher also its
15-minute readings, the six loads and the noised future. The days that the file fills are masked. The test parts are the
last three times 60 days of the file, back to back; the validation part is the last 20 % of the history. Nothing is
chosen but the epoch, on validation.
"""

import datetime as dt
from functools import cache
from pathlib import Path

from benchmarks.common import (
    LOOKBACK_HOURS,
    ORIGINS,
    QUICK,
    Cell,
    Losses,
    make_cell_dataset,
    measure_contenders,
)
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.windows import Panel, read_panel

SPEC = Path(__file__).parent.parent / "deployments" / "datasets" / "ett.yaml"
HISTORIES = (50,) if QUICK else (50, 100, 200)
TEST_DAYS = 60


def every_cell() -> list[Cell]:
    """All cells, the short histories first."""
    return [Cell(h, days, origin) for days in HISTORIES for h in LOOKBACK_HOURS for origin in range(ORIGINS)]


@cache
def load_transformer() -> tuple[Panel, dt.datetime, dt.datetime]:
    """The transformer, read once a process, with its frozen days masked."""
    return read_panel(load_dataset_spec(SPEC))


def measure_cell(cell: Cell) -> Losses:
    """All losses of a cell."""
    panel, first, end = load_transformer()
    return measure_contenders(make_cell_dataset(panel, cell, first, end, test_days=TEST_DAYS), seed=cell.origin)
