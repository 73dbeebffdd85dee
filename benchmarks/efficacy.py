"""Is the privileged data worth it? Distilled students against their twins: `make bench-efficacy`.

The household (`benchmarks.household_cells`), an hour and a day ahead, with histories of 50 days up to all there is.
A part with fewer windows than the pipeline takes is left out, and named. The recipe is the pipeline's default. It was
chosen on earlier days (docs/log.md), and on the test parts nothing was chosen; on validation only the epoch.
`benchmarks.common` says who teaches whom.

Gains are CRPS against the twin, mean over seeds, with the interval of `tutelage.judge.comparison` over the test windows
of all origins; p is one-sided (a gain) and Holm-corrected over the cells. Each cell has its floor, the best of the
simple forecasts, and the students' gain over it. Finished pieces stay under TUTELAGE_HOME and are not computed again.
A row of the results stays until as many pieces of it are measured anew; each names the commits of its pieces. QUICK=1
takes two histories, one origin and two seeds. `benchmarks.homes` and `benchmarks.teachers` follow, and where
TUTELAGE_ETT names a folder, `benchmarks.ett`; their figures, and the controls', stand in the same JSON.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from functools import reduce
from pathlib import Path

import numpy as np
import torch

from benchmarks import ett, homes, teachers
from benchmarks.common import (
    COMMIT,
    LOOKBACK_HOURS,
    QUICK,
    SEEDS,
    STUDENTS,
    Cell,
    Losses,
    Row,
    add_holm,
    cells_table,
    commits_of,
    joined,
    measure_pieces,
    pieces_folder,
    summarise_cell,
    with_earlier,
)
from benchmarks.household_cells import (
    HISTORIES,
    SHORT_DAYS,
    SPEC,
    TESTED_DAYS,
    can_be_measured,
    every_cell,
    load_household,
    measure_cell,
    origins_of,
)
from tutelage.files import read_json, write_json
from tutelage.forecasts import Contender
from tutelage.judge.comparison import Gain, gain_over

RESULTS = Path(__file__).parent / "results" / "efficacy.json"
SIGNIFICANT = 0.05
SHORT = f"up to {SHORT_DAYS}"
"""The name of the mean over short histories."""


def _left_out() -> list[str]:
    return [f"{cell.name}-{cell.origin}" for cell in every_cell() if not can_be_measured(cell)]


def folder_of_pieces() -> Path:
    """Where the pieces' files are."""
    return pieces_folder("efficacy", "benchmarks.household_cells", SPEC)


def pooled(cells: list[list[Losses]]) -> Gain:
    """The mean gain over cells, each loss relative to its cell's twin; windows of one hour are one."""
    student, twin, hour = [], [], []
    for pieces in cells:
        scale = joined(pieces, Contender.TWIN).mean()
        student.append(joined(pieces, Contender.STUDENT) / scale)
        twin.append(joined(pieces, Contender.TWIN) / scale)
        hour.append(joined(pieces, "hour"))
    return gain_over(np.concatenate(student), np.concatenate(twin), np.concatenate(hour))


def _pooled_row(cells: list[list[Losses]]) -> Row:
    gain, pieces = pooled(cells), [piece for of_cell in cells for piece in of_cell]
    row = {"mean": gain.estimate, "low": gain.low, "high": gain.high, "p": gain.p}
    return row | {"pieces": len(pieces), COMMIT: commits_of(pieces)}


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
    by_cell: Mapping[tuple[int, int | None], list[Losses]], wanted: Collection[Cell], days_of_all: int
) -> dict[str, float | None]:
    saved = {}
    for horizon in LOOKBACK_HOURS:
        parts = Counter((cell.horizon, cell.history) for cell in wanted if cell.horizon == horizon)
        if not parts or any(len(by_cell.get(key, [])) < count for key, count in parts.items()):
            continue
        by_days = {days_of_all if days is None else days: p for (h, days), p in by_cell.items() if h == horizon}
        by_days = {days: p for days, p in by_days.items() if days >= SHORT_DAYS}  # a shorter one can be no answer
        saved[f"{horizon}h"] = history_saved(_on_common_hours(by_days), SHORT_DAYS)
    return saved


def summarise(
    done: Mapping[Cell, Losses], wanted: Collection[Cell], *, days_of_all: int, earlier: Row | None = None
) -> Row:
    """All cells, and the summary over them.

    wanted: all that are to be measured; how much history is saved waits for all of a horizon
    earlier: figures as these, whose rows stay where fewer pieces, or none, were measured
    """
    before = earlier or {"cells": {}, "summary": {"gain_by_history": {}, "short": {}, "history_saved": {}}}
    by_cell: dict[tuple[int, int | None], list[Losses]] = {}
    for piece, losses in done.items():
        by_cell.setdefault((piece.horizon, piece.history), []).append(losses)
    measured = {Cell(*key, 0).name: summarise_cell(pieces) for key, pieces in by_cell.items()}
    cells = with_earlier(measured, before["cells"])
    add_holm(cells)
    groups = {"all" if days is None else str(days): (days,) for days in HISTORIES}
    groups[SHORT] = tuple(days for days in HISTORIES if days is not None and days <= SHORT_DAYS)
    pooled_rows = {
        name: _pooled_row([pieces for (_, history), pieces in by_cell.items() if history in days])
        for name, days in groups.items()
        if any(history in days for _, history in by_cell)
    }
    by_history = with_earlier(pooled_rows, before["summary"]["gain_by_history"] | before["summary"]["short"])
    short = {SHORT: by_history.pop(SHORT)} if SHORT in by_history else {}
    worse = _worse_cells(cells)
    return {
        "cells": cells,
        "summary": {
            "gain_by_history": by_history,
            "short": short,
            "mean_gain_short": short[SHORT]["mean"] if short else None,
            "p_short": short[SHORT]["p"] if short else None,
            "cells": len(cells),
            "cells_behind_floor": _cells_behind_floor(cells),
            "cells_significantly_worse": len(worse),
            "worse_cells": worse,
            "history_saved": before["summary"]["history_saved"]
            | _history_saved_by_horizon(by_cell, wanted, days_of_all),
        },
    }


def _cells_behind_floor(rows: Mapping[str, Row]) -> list[str]:
    return [name for name, row in rows.items() if row["floor"]["estimate"] < 0]


def _worse_cells(rows: Mapping[str, Row]) -> list[str]:
    return [name for name, row in rows.items() if row["p_worse_holm"] < SIGNIFICANT]


def main() -> None:
    """Measure what is missing, the short histories first; print the table and write the JSON after each piece."""
    folder = folder_of_pieces()
    results = folder / "efficacy.json" if QUICK else RESULTS
    _, first, end = load_household()
    earlier = read_json(results) if results.exists() else None
    paths = {cell: folder / f"{cell.name}-{cell.origin}.npz" for cell in every_cell() if can_be_measured(cell)}
    done: dict[Cell, Losses] = {}
    figures = summarise(done, paths.keys(), days_of_all=(end - first).days - TESTED_DAYS, earlier=earlier)
    for finished, losses in measure_pieces(paths, measure_cell):
        done[finished] = losses
        figures = summarise(done, paths.keys(), days_of_all=(end - first).days - TESTED_DAYS, earlier=earlier)
        _write(figures, results)
    print(cells_table(figures["cells"]))
    print("left out, too few windows in a part:", ", ".join(_left_out()) or "none")
    homes.main()
    teachers.main()
    if "TUTELAGE_ETT" in os.environ:
        ett.main()
    print(json.dumps(_write(figures, results), indent=2))


def _write(figures: Row, results: Path) -> Row:
    """Write the JSON, with the figures of `make bench-controls` and `benchmarks.ett` where there are any."""
    summary = dict(figures["summary"])
    controls, transformers = (RESULTS.with_name(f"{name}.json") for name in ("controls", "ett"))
    parts = {name: RESULTS.with_name(f"{name}.json") for name in ("homes", "teachers")}
    figures = figures | {name: read_json(path) for name, path in parts.items() if path.exists()}
    if controls.exists():
        of_controls = read_json(controls)
        summary |= {
            "positive_control_win_rate": of_controls["positive"]["win_rate"]["rate"],
            "null_control_promotion_rate": of_controls["null"]["promotion_rate"]["rate"],
        }
    if transformers.exists():
        of_ett = read_json(transformers)
        cells = {f"ETT {name}": row for name, row in of_ett["cells"].items()}
        further = {**of_ett["protocol"], **cells}
        summary["cells_behind_floor"] = [*summary["cells_behind_floor"], *_cells_behind_floor(cells)]
        worse = _worse_cells(further)
        summary["cells"] += len(further)
        summary["cells_significantly_worse"] += len(worse)
        summary["worse_cells"] = [*summary["worse_cells"], *worse]
        figures |= {"ett": {"protocol": of_ett["protocol"], "cells": of_ett["cells"]}}
    settings = {
        "seeds": SEEDS,
        "origins": {str(days or "all"): origins_of(days) for days in HISTORIES},
        "left_out": _left_out(),
        "not_measured": sorted({cell.name for cell in every_cell()} - set(figures["cells"])),
        "quick": QUICK,
        "torch": torch.__version__,
        "device": "cpu",
    }
    write_json(results, {**figures, "summary": summary, "settings": settings})
    return summary


if __name__ == "__main__":
    main()
