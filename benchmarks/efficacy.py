"""Is the privileged data worth it? Distilled students against their twins: `make bench-efficacy`.

Real minute data of one household, fills masked; horizons 1 h and 24 h; histories of 50 days up to all there is, the
validation part (the last 20 %) within them. Tests are the last 360 days of the file, in three parts back to back, each
with its own training before it; histories of up to 100 days, cheap to train and more a matter of luck, have six parts.
A part with fewer windows than the pipeline takes is left out, and named. The recipe is the pipeline's default. It was
chosen on earlier days (docs/log.md), and on the test parts nothing was chosen; on validation only the epoch.
`benchmarks.common` says who teaches whom.

Gains are CRPS against the twin, mean over seeds, with the interval of `tutelage.judge.comparison` over the test windows
of all origins; p is one-sided (a gain) and Holm-corrected over the cells. Each cell has its floor, the best of the
simple forecasts, and the students' gain over it. Finished pieces stay under TUTELAGE_HOME and are not computed again.
QUICK=1 takes two histories, one origin and two seeds. `benchmarks.homes` follows, and where TUTELAGE_ETT names a
folder, `benchmarks.ett`; their figures, and the controls', stand in the same JSON.
"""

import datetime as dt
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache, reduce
from pathlib import Path

import numpy as np
import torch

from benchmarks import ett, homes
from benchmarks.common import (
    LOOKBACK_HOURS,
    ORIGINS,
    QUICK,
    RECIPES,
    SEEDS,
    STUDENTS,
    Cell,
    Losses,
    Row,
    add_holm,
    gain_by_origin,
    gain_by_seed,
    gain_of,
    joined,
    make_cell_dataset,
    measure_contenders,
    measure_pieces,
    over_origins,
)
from runtime.paths import home
from runtime.provenance import code_digest, git_commit
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.windows import LEAST_WINDOWS, Panel, read_panel
from tutelage.distil.dataset import WindowDataset
from tutelage.files import file_digest, read_json, value_digest, write_json
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES
from tutelage.judge.comparison import Gain, gain_over

SPEC = Path(__file__).parent.parent / "deployments" / "datasets" / "household.yaml"
RESULTS = Path(__file__).parent / "results" / "efficacy.json"
HISTORIES: tuple[int | None, ...] = (50, 100) if QUICK else (50, 100, 200, 400, None)
TESTED_DAYS = 360
SHORT_DAYS = 100
SHORT_ORIGINS = 1 if QUICK else 6
SIGNIFICANT = 0.05


@cache
def _household() -> tuple[Panel, dt.datetime, dt.datetime]:
    """The household, read once a process."""
    return read_panel(load_dataset_spec(SPEC))


def origins_of(history: int | None) -> int:
    """How many test parts a history is evaluated on."""
    return SHORT_ORIGINS if history is not None and history <= SHORT_DAYS else ORIGINS


def _test_days(history: int | None) -> int:
    return TESTED_DAYS // (3 if QUICK else origins_of(history))


def dataset_of(cell: Cell) -> WindowDataset:
    """A cell's windows."""
    panel, first, end = _household()
    return make_cell_dataset(panel, cell, first, end, test_days=_test_days(cell.history))


def every_piece() -> list[Cell]:
    """All cells at all of their origins, the short histories first."""
    return [
        Cell(horizon, days, origin)
        for days in HISTORIES
        for horizon in LOOKBACK_HOURS
        for origin in range(origins_of(days))
    ]


def measure(cell: Cell) -> Losses:
    """All losses of a cell."""
    return measure_contenders(dataset_of(cell), seed=cell.origin)


@cache
def can_be_measured(cell: Cell) -> bool:
    """Whether all parts have as many windows as a retrain asks for: masked hours may leave a short one without any."""
    dataset = dataset_of(cell)
    return min(len(dataset.train), len(dataset.validation), len(dataset.test)) >= LEAST_WINDOWS


def _left_out() -> list[str]:
    return [f"{piece.name}-{piece.origin}" for piece in every_piece() if not can_be_measured(piece)]


def folder_of_pieces() -> Path:
    """Where the pieces' files are: under what they are computed by, so that old ones are never taken."""
    days = {str(history): _test_days(history) for history in HISTORIES}
    by = {"code": code_digest("benchmarks.common"), "spec": file_digest(SPEC), "test_days": days, "quick": QUICK}
    return home() / "benchmarks" / f"efficacy-{value_digest(by)[:12]}"


def summarise_cell(pieces: list[Losses]) -> Row:
    """The figures of one cell over its origins."""
    crps = {name: float(joined(pieces, name).mean()) for name in (*STUDENTS, Contender.TEACHER, *BASELINES)}
    floor, by_origin = min(BASELINES, key=crps.__getitem__), gain_by_origin(pieces)
    return {
        "n_train_windows": [int(piece["n_train"]) for piece in pieces],
        "crps": crps,
        "floor": {"name": floor, **asdict(gain_of(pieces, Contender.STUDENT, floor))},
        "gain": {name: asdict(gain_of(pieces, name, Contender.TWIN)) for name in RECIPES},
        "gain_of_privilege": asdict(gain_of(pieces, Contender.STUDENT, Contender.UNPRIVILEGED)),
        "gain_by_origin": by_origin,
        "gain_over_origins": over_origins(by_origin),
        "gain_by_seed": gain_by_seed(pieces),
    }


def pooled(cells: list[list[Losses]]) -> Gain:
    """The mean gain over cells, each loss relative to its cell's twin; windows of one hour are one."""
    student, twin, hour = [], [], []
    for pieces in cells:
        scale = joined(pieces, Contender.TWIN).mean()
        student.append(joined(pieces, Contender.STUDENT) / scale)
        twin.append(joined(pieces, Contender.TWIN) / scale)
        hour.append(joined(pieces, "hour"))
    return gain_over(np.concatenate(student), np.concatenate(twin), np.concatenate(hour))


def _on_common_hours(pieces: Mapping[int, list[Losses]]) -> dict[int, dict[Contender, float]]:
    """Mean CRPS by kind of student for each history, over the issue times that all of them have.

    Where a test part begins there are some hours without a window, and not all histories have the same parts.
    """
    hours = {days: joined(of_days, "hour") for days, of_days in pieces.items()}
    common = reduce(np.intersect1d, hours.values(), next(iter(hours.values()), np.zeros(0)))
    return {
        days: {name: float(joined(of_days, name)[np.isin(hours[days], common)].mean()) for name in STUDENTS}
        for days, of_days in pieces.items()
    }


def history_saved(crps_of: Mapping[int, Mapping[Contender, float]], days: int) -> float | None:
    """How many times `days` the twin needs to match the student of `days`, on a line in log days.

    1 where it needs no more, None where it needs more than all.

    crps_of: days of history → mean CRPS by kind of student, on the same test windows
    """
    if days not in crps_of:
        return None
    wanted, known = crps_of[days][Contender.STUDENT], sorted(crps_of)
    if crps_of[days][Contender.TWIN] <= wanted:
        return 1.0
    for short, long in itertools.pairwise(known):
        a, b = crps_of[short][Contender.TWIN], crps_of[long][Contender.TWIN]
        if b <= wanted < a:
            share = (a - wanted) / (a - b)
            return float(np.exp(np.log(short) + share * (np.log(long) - np.log(short))) / days)
    return None


def _history_saved_by_horizon(
    by_cell: Mapping[tuple[int, int | None], list[Losses]], days_of_all: int
) -> dict[str, float | None]:
    saved = {}
    for horizon in LOOKBACK_HOURS:
        by_days = {days_of_all if days is None else days: p for (h, days), p in by_cell.items() if h == horizon}
        by_days = {days: p for days, p in by_days.items() if days >= SHORT_DAYS}  # a shorter one can be no answer
        saved[f"{horizon}h"] = history_saved(_on_common_hours(by_days), SHORT_DAYS)
    return saved


def summarise(done: Mapping[Cell, Losses], days_of_all: int) -> Row:
    """All cells, and the summary over them."""
    by_cell: dict[tuple[int, int | None], list[Losses]] = {}
    for piece, losses in done.items():
        by_cell.setdefault((piece.horizon, piece.history), []).append(losses)
    cells = {Cell(*key, 0).name: summarise_cell(pieces) for key, pieces in by_cell.items()}
    add_holm(cells)
    by_history = {}
    for history in HISTORIES:
        chosen = [pieces for key, pieces in by_cell.items() if key[1] == history]
        if chosen:
            gain = pooled(chosen)
            name = "all" if history is None else str(history)
            by_history[name] = {"mean": gain.estimate, "low": gain.low, "high": gain.high, "p": gain.p}
    short = [pieces for key, pieces in by_cell.items() if key[1] is not None and key[1] <= SHORT_DAYS]
    mean_short = pooled(short) if short else None
    worse = _worse_cells(cells)
    return {
        "cells": cells,
        "summary": {
            "gain_by_history": by_history,
            "mean_gain_short": mean_short.estimate if mean_short else None,
            "p_short": mean_short.p if mean_short else None,
            "cells": len(cells),
            "cells_behind_floor": [name for name, row in cells.items() if row["floor"]["estimate"] < 0],
            "cells_significantly_worse": len(worse),
            "worse_cells": worse,
            "history_saved": _history_saved_by_horizon(by_cell, days_of_all),
        },
    }


def _worse_cells(rows: Mapping[str, Row]) -> list[str]:
    return [name for name, row in rows.items() if row["p_worse_holm"] < SIGNIFICANT]


def table(figures: Row) -> str:
    """The cells as text: CRPS in kW, gains over the twin in per cent."""
    lines = [
        f"{'cell':<10}{'floor':>8}{'twin':>8}{'student':>9}{'teacher':>9}{'gain':>8}{'95 % interval':>18}{'p Holm':>9}"
        f"{'unpriv.':>10}{'placebo':>9}  by origin"
    ]
    for name, cell in figures["cells"].items():
        c, g = cell["crps"], cell["gain"]
        gain, floor = g[Contender.STUDENT], c[cell["floor"]["name"]]
        lines.append(
            f"{name:<10}{floor:>8.4f}{c[Contender.TWIN]:>8.4f}{c[Contender.STUDENT]:>9.4f}{c[Contender.TEACHER]:>9.4f}"
            f"{gain['estimate']:>+8.1%}{gain['low']:>+9.1%} … {gain['high']:>+6.1%}{cell['p_holm']:>9.3f}"
            f"{g[Contender.UNPRIVILEGED]['estimate']:>+10.1%}{g[Contender.PLACEBO]['estimate']:>+9.1%}  "
            + " ".join(f"{x:+.1%}" for x in cell["gain_by_origin"])
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, the short histories first; print the table and write the JSON after each piece."""
    folder = folder_of_pieces()
    results = folder / "efficacy.json" if QUICK else RESULTS
    _, first, end = _household()
    pieces = list(filter(can_be_measured, every_piece()))
    paths = {piece: folder / f"{piece.name}-{piece.origin}.npz" for piece in pieces}
    done: dict[Cell, Losses] = {}
    for finished, losses in measure_pieces(paths, measure):
        done[finished] = losses
        lacking = {piece.name for piece in pieces if piece not in done}
        whole = {piece: done[piece] for piece in pieces if piece.name not in lacking}
        if whole:
            figures = summarise(whole, days_of_all=(end - first).days - TESTED_DAYS)
            _write(figures, results)
    print(table(figures))
    print("left out, too few windows in a part:", ", ".join(_left_out()) or "none")
    homes.main()
    if "TUTELAGE_ETT" in os.environ:
        ett.main()
    print(json.dumps(_write(figures, results), indent=2))


def _write(figures: Row, results: Path) -> Row:
    """Write the JSON, with the figures of `make bench-controls` and `benchmarks.ett` where there are any."""
    summary = dict(figures["summary"])
    controls, transformers, of_homes = (RESULTS.with_name(f"{name}.json") for name in ("controls", "ett", "homes"))
    if of_homes.exists():
        figures = {**figures, "homes": read_json(of_homes)}
    if controls.exists():
        of_controls = read_json(controls)
        summary |= {
            "positive_control_win_rate": of_controls["positive"]["win_rate"]["rate"],
            "null_control_promotion_rate": of_controls["null"]["promotion_rate"]["rate"],
        }
    if transformers.exists():
        of_ett = read_json(transformers)
        further = {**of_ett["protocol"], **{f"ETT {name}": row for name, row in of_ett["cells"].items()}}
        worse = _worse_cells(further)
        summary["cells"] += len(further)
        summary["cells_significantly_worse"] += len(worse)
        summary["worse_cells"] = [*summary["worse_cells"], *worse]
        figures = {**figures, "ett": {"protocol": of_ett["protocol"], "cells": of_ett["cells"]}}
    settings = {
        "seeds": SEEDS,
        "origins": {str(days or "all"): origins_of(days) for days in HISTORIES},
        "left_out": _left_out(),
        "not_measured": sorted({piece.name for piece in every_piece()} - set(figures["cells"])),
        "commit": git_commit(),
        "quick": QUICK,
        "torch": torch.__version__,
        "device": "cpu",
    }
    write_json(results, {**figures, "summary": summary, "settings": settings})
    return summary


if __name__ == "__main__":
    main()
