"""Is the privileged data worth it? Distilled students against their twins: `make bench-efficacy`.

Real minute data of one household, fills masked; horizons 1 h and 24 h; histories of 50 days up to all there is, the
validation part (the last 20 %) within them. Tests are the last 360 days of the file, in three parts back to back, each
with its own training before it; histories of up to 100 days, cheap to train and more a matter of luck, have six parts.
A part with fewer windows than the pipeline takes is left out, and said. The recipe is the pipeline's default. It was
chosen on earlier days (docs/log.md), and on the test parts nothing was chosen; on validation the epoch alone.
`benchmarks.pairs` says who teaches whom.

Gains are CRPS against the twin, mean over seeds, with the paired block bootstrap of `tutelage.comparison` over the test
windows of all origins; p is one-sided (a gain) and Holm-corrected over the cells. Finished pieces are kept under
TUTELAGE_HOME and not computed again. QUICK=1 takes two histories, one origin and two seeds. Where TUTELAGE_ETT names a
folder, `benchmarks.ett` follows; its cells, and the controls' figures, stand in the same JSON.
"""

import datetime as dt
import itertools
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial, reduce
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import ett
from benchmarks.pairs import (
    KINDS,
    LOOKBACK_HOURS,
    ORIGINS,
    QUICK,
    SEEDS,
    TAUGHT_BY,
    Cell,
    code_digest,
    holm,
    kept,
    load_series,
    make_task,
    measure_pairs,
)
from tutelage.comparison import Gain, gain_over
from tutelage.dataset import DatasetSpec
from tutelage.distillation import Task
from tutelage.files import read_json, value_digest, write_json
from tutelage.windows import LEAST_WINDOWS, Panel

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "efficacy.json"
HISTORIES: tuple[int | None, ...] = (50, 100) if QUICK else (50, 100, 200, 400, None)
TESTED_DAYS = 360
SHORT_DAYS = 100
SHORT_ORIGINS = 1 if QUICK else 6
SIGNIFICANT = 0.05


@cache
def _household() -> tuple[Panel, DatasetSpec, dt.datetime, dt.datetime]:
    """The household, read once a process."""
    return load_series(ROOT / "deployments" / "datasets" / "household.yaml")


def origins_of(history: int | None) -> int:
    """How many test parts a history is judged on."""
    return SHORT_ORIGINS if history is not None and history <= SHORT_DAYS else ORIGINS


def _task_of(cell: Cell) -> tuple[Task, Tensor]:
    panel, _, first, end = _household()
    parts = 3 if QUICK else origins_of(cell.history)
    return make_task(panel, cell, first, end, test_days=TESTED_DAYS // parts)


def every_piece() -> list[Cell]:
    """All cells at all of their origins, the short histories first."""
    return [
        Cell(horizon, days, origin)
        for days in HISTORIES
        for horizon in LOOKBACK_HOURS
        for origin in range(origins_of(days))
    ]


def measure(cell: Cell) -> dict[str, np.ndarray]:
    """All losses of a cell: `pairs.measure_pairs` on its task."""
    task, test = _task_of(cell)
    return measure_pairs(task, test, seed=cell.origin)


@cache
def can_be_measured(cell: Cell) -> bool:
    """Whether all parts have as many windows as a retrain asks for: masked hours may leave a short one without any."""
    task, test = _task_of(cell)
    return min(len(task.train), len(task.validation), len(test)) >= LEAST_WINDOWS


def _left_out() -> list[str]:
    return [f"{piece.name}-{piece.origin}" for piece in every_piece() if not can_be_measured(piece)]


def _kept(cell: Cell, path: Path) -> tuple[Cell, dict[str, np.ndarray]]:
    return cell, kept(path, partial(measure, cell))


def _joined(pieces: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.concatenate([piece[name] for piece in pieces])


def _gain(pieces: list[dict[str, np.ndarray]], kind: str, reference: str) -> Gain:
    return gain_over(_joined(pieces, kind), _joined(pieces, reference), _joined(pieces, "hour"), seed=0)


def summarise_cell(pieces: list[dict[str, np.ndarray]]) -> dict[str, object]:
    """The figures of one cell over its origins."""
    return {
        "n_train_windows": [int(piece["n_train"]) for piece in pieces],
        "crps": {
            name: float(_joined(pieces, name).mean())
            for name in (*KINDS, "teacher", "seasonal_naive_24h", "seasonal_naive_168h")
        },
        "gain": {kind: _gain(pieces, kind, "twin").as_dict() for kind in TAUGHT_BY},
        "gain_of_privilege": _gain(pieces, "privileged", "no_privilege").as_dict(),
        "gain_by_origin": [float(1 - p["privileged"].mean() / p["twin"].mean()) for p in pieces],
        "gain_by_seed": [
            float(g) for g in 1 - sum(p["privileged_by_seed"] for p in pieces) / sum(p["twin_by_seed"] for p in pieces)
        ],
    }


def pooled(cells: list[list[dict[str, np.ndarray]]]) -> Gain:
    """The mean gain over cells, each loss relative to its cell's twin; windows of one hour are one."""
    student, twin, hour = [], [], []
    for pieces in cells:
        scale = _joined(pieces, "twin").mean()
        student.append(_joined(pieces, "privileged") / scale)
        twin.append(_joined(pieces, "twin") / scale)
        hour.append(_joined(pieces, "hour"))
    return gain_over(np.concatenate(student), np.concatenate(twin), np.concatenate(hour), seed=0)


def _on_common_hours(pieces: dict[int, list[dict[str, np.ndarray]]]) -> dict[int, dict[str, float]]:
    """Mean CRPS by kind for each history, over the issue times that all of them have.

    Where a test part begins there are some hours without a window, and not all histories have the same parts.
    """
    hours = {days: _joined(of, "hour") for days, of in pieces.items()}
    common = reduce(np.intersect1d, hours.values(), next(iter(hours.values()), np.zeros(0)))
    return {
        days: {kind: float(_joined(of, kind)[np.isin(hours[days], common)].mean()) for kind in KINDS}
        for days, of in pieces.items()
    }


def history_saved(crps_of: dict[int, dict[str, float]], days: int) -> float | None:
    """How many times `days` the twin needs to match the student of `days`, on a line in log days.

    1 where it needs no more, None where it needs more than all.

    crps_of: days of history → mean CRPS by kind, on the same test windows
    """
    if days not in crps_of:
        return None
    wanted, known = crps_of[days]["privileged"], sorted(crps_of)
    if crps_of[days]["twin"] <= wanted:
        return 1.0
    for short, long in itertools.pairwise(known):
        a, b = crps_of[short]["twin"], crps_of[long]["twin"]
        if b <= wanted < a:
            share = (a - wanted) / (a - b)
            return float(np.exp(np.log(short) + share * (np.log(long) - np.log(short))) / days)
    return None


def summarise(done: dict[Cell, dict[str, np.ndarray]], days_of_all: int) -> dict[str, object]:
    """All cells, and the summary over them."""
    by_cell: dict[tuple[int, int | None], list[dict[str, np.ndarray]]] = {}
    for piece, losses in done.items():
        by_cell.setdefault((piece.horizon, piece.history), []).append(losses)
    cells = {Cell(*key, 0).name: summarise_cell(pieces) for key, pieces in by_cell.items()}
    better = holm({name: cell["gain"]["privileged"]["p"] for name, cell in cells.items()})  # type: ignore[index]
    worse = holm({name: 1 - cell["gain"]["privileged"]["p"] for name, cell in cells.items()})  # type: ignore[index]
    for name, cell in cells.items():
        cell |= {"p_holm": better[name], "p_worse_holm": worse[name]}
    by_history = {}
    for history in HISTORIES:
        chosen = [pieces for key, pieces in by_cell.items() if key[1] == history]
        if chosen:
            gain = pooled(chosen)
            name = "all" if history is None else str(history)
            by_history[name] = {"mean": gain.estimate, "low": gain.low, "high": gain.high, "p": gain.p}
    short = [pieces for key, pieces in by_cell.items() if key[1] is not None and key[1] <= SHORT_DAYS]
    mean_short = pooled(short) if short else None
    saved = {}
    for horizon in LOOKBACK_HOURS:
        of = {days_of_all if days is None else days: p for (h, days), p in by_cell.items() if h == horizon}
        of = {days: p for days, p in of.items() if days >= SHORT_DAYS}  # a shorter one can be no answer
        saved[f"{horizon}h"] = history_saved(_on_common_hours(of), SHORT_DAYS)
    return {
        "cells": cells,
        "summary": {
            "gain_by_history": by_history,
            "mean_gain_short": mean_short.estimate if mean_short else None,
            "p_short": mean_short.p if mean_short else None,
            "cells": len(cells),
            "cells_significantly_worse": sum(p < SIGNIFICANT for p in worse.values()),
            "worse_cells": [name for name, p in worse.items() if p < SIGNIFICANT],
            "history_saved": saved,
        },
    }


def table(found: dict[str, object]) -> str:
    """The cells as text: CRPS in kW, gains over the twin in per cent."""
    lines = [
        f"{'cell':<10}{'naive':>8}{'twin':>8}{'student':>9}{'teacher':>9}{'gain':>8}{'95 % interval':>18}{'p Holm':>9}"
    ]
    lines[0] += f"{'no priv.':>10}{'placebo':>9}  by origin"
    for name, cell in found["cells"].items():  # type: ignore[attr-defined]
        c, g = cell["crps"], cell["gain"]
        gain, naive = g["privileged"], min(c["seasonal_naive_24h"], c["seasonal_naive_168h"])
        lines.append(
            f"{name:<10}{naive:>8.4f}{c['twin']:>8.4f}{c['privileged']:>9.4f}{c['teacher']:>9.4f}"
            f"{gain['estimate']:>+8.1%}{gain['low']:>+9.1%} … {gain['high']:>+6.1%}{cell['p_holm']:>9.3f}"
            f"{g['no_privilege']['estimate']:>+10.1%}{g['placebo']['estimate']:>+9.1%}  "
            + " ".join(f"{x:+.1%}" for x in cell["gain_by_origin"])
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, the short histories first; print the table and write the JSON after each piece."""
    settings = {"code": code_digest(), "quick": QUICK}
    home = Path(os.environ.get("TUTELAGE_HOME", "var"))
    folder = home / "benchmarks" / f"efficacy-{value_digest(settings)[:12]}"
    results = folder / "efficacy.json" if QUICK else RESULTS
    _, _, first, end = _household()
    pieces = list(filter(can_be_measured, every_piece()))
    paths = {piece: folder / f"{piece.name}-{piece.origin}.npz" for piece in pieces}
    done: dict[Cell, dict[str, np.ndarray]] = {}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for finished in as_completed(pool.submit(_kept, piece, path) for piece, path in paths.items()):
            piece, done[piece] = finished.result()
            lacking = {piece.name for piece in pieces if piece not in done}
            whole = {piece: done[piece] for piece in pieces if piece.name not in lacking}
            if whole:
                found = summarise(whole, days_of_all=(end - first).days - TESTED_DAYS)
                _write(found, results)
    print(table(found))
    print("left out, too few windows in a part:", ", ".join(_left_out()) or "none")
    if "TUTELAGE_ETT" in os.environ:
        ett.main()
    print(json.dumps(_write(found, results), indent=2))


def _write(found: dict[str, object], results: Path) -> dict[str, object]:
    """Write the JSON, with what `make bench-controls` and `benchmarks.ett` found, where they were run."""
    summary: dict[str, object] = dict(found["summary"])  # type: ignore[call-overload]
    controls, transformers = (RESULTS.with_name(name) for name in ("controls.json", "ett.json"))
    if controls.exists():
        told = read_json(controls)
        summary |= {
            "positive_control_win_rate": told["positive"]["win_rate"]["rate"],
            "null_control_promotion_rate": told["null"]["promotion_rate"]["rate"],
        }
    if transformers.exists():
        told = read_json(transformers)
        further = {**told["protocol"], **{f"ETT {name}": row for name, row in told["cells"].items()}}
        worse = [name for name, row in further.items() if row["p_worse_holm"] < SIGNIFICANT]
        summary["cells"] += len(further)  # type: ignore[operator]
        summary["cells_significantly_worse"] += len(worse)  # type: ignore[operator]
        summary["worse_cells"] = [*summary["worse_cells"], *worse]  # type: ignore[misc]
        found = {**found, "ett": {"protocol": told["protocol"], "cells": told["cells"]}}
    settings = {
        "seeds": SEEDS,
        "origins": {str(days or "all"): origins_of(days) for days in HISTORIES},
        "left_out": _left_out(),
        "quick": QUICK,
        "torch": torch.__version__,
        "device": "cpu",
    }
    write_json(results, {**found, "summary": summary, "settings": settings})
    return summary


if __name__ == "__main__":
    main()
