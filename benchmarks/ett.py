"""ETT: the published protocol against published figures, and hourly students with 15-minute privilege.

The files are not in the repository (CC BY-ND 4.0): name the folder with ETTh1.csv and ETTm1.csv in TUTELAGE_ETT. They
are checked by their SHA-256. `python -m benchmarks.ett`, or as a part of `make bench-efficacy`; QUICK=1: minutes.

1. `benchmarks.ett_protocol`: ETTh1 and ETTm1, 96 steps in, five horizons, MSE and MAE over all test windows.
2. `benchmarks.ett_cells`: the pipeline's default recipe on hourly means of the oil temperature, short histories, CRPS.

Gains are over the twin, mean of the seeds' losses, with the interval of `tutelage.judge.comparison`; p is one-sided
and Holm-corrected over the cells of each table. The interval holds the networks fixed. Finished pieces stay under
TUTELAGE_HOME and are not computed again.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks import ett_protocol as protocol
from benchmarks.common import (
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
    joined,
    load_or_measure,
    over_origins,
)
from benchmarks.ett_cells import SPEC, every_cell, measure_cell
from runtime.paths import home
from runtime.provenance import code_digest
from tutelage.files import file_digest, value_digest, write_json
from tutelage.forecasts import Contender
from tutelage.judge.comparison import gain_over

RESULTS = Path(__file__).parent / "results" / "ett.json"
TIMEKD = {
    24: (0.202, 0.258),
    36: (0.259, 0.302),
    48: (0.272, 0.323),
    96: (0.305, 0.342),
    192: (0.355, 0.367),
}
"""TimeKD's published MSE and MAE on ETTm1, arXiv:2505.02138. Those on ETTh1 were not at hand."""
Piece = str | Cell
"""ETTh1 or ETTm1 under the published protocol, or one cell at one origin."""


def pieces() -> list[Piece]:
    """All that is measured, the protocol first."""
    return [*(["ETTh1"] if QUICK else protocol.STEPS_A_DAY), *every_cell()]


def measure(piece: Piece) -> Losses:
    """All of one piece's errors, by test window."""
    if isinstance(piece, Cell):
        return measure_cell(piece)
    series = protocol.make_series(protocol.read_values(piece), protocol.STEPS_A_DAY[piece])
    settings = protocol.SETTINGS[piece]
    return protocol.measure(series, protocol.quick(settings) if QUICK else settings)


def path_of(piece: Piece) -> Path:
    """A piece's file: under what its figures are computed by, so that old ones are never taken."""
    if isinstance(piece, Cell):
        code = [code_digest("benchmarks.ett_cells"), file_digest(SPEC)]
        name = f"{piece.name}-{piece.origin}"
    else:
        code = [code_digest("benchmarks.ett_protocol")]
        name = piece
    return home() / "benchmarks" / f"ett-{value_digest([*code, QUICK])[:12]}" / f"{name}.npz"


def losses_of(piece: Piece) -> Losses:
    """A piece's figures, measured where there is no file of them yet."""
    return load_or_measure(path_of(piece), partial(measure, piece))


def _gains(losses_by: Callable[[str], np.ndarray], hour: np.ndarray) -> dict[str, dict[str, float]]:
    def over(name: str, reference: str) -> dict[str, float]:
        return asdict(gain_over(losses_by(name), losses_by(reference), hour))

    gains: dict[str, dict[str, float]] = {name: over(name, Contender.TWIN) for name in RECIPES}
    return {**gains, "of_privilege": over(Contender.STUDENT, Contender.UNPRIVILEGED)}


def summarise_horizon(piece: str, losses: Losses, horizon: int) -> Row:
    """One row of the protocol's table: MSE, MAE and the gain in MSE and MAE over the twin."""
    steps_an_hour = protocol.STEPS_A_DAY[piece] // 24
    hour = losses[f"origin_{horizon}"] // steps_an_hour
    scored = (*protocol.STUDENTS, Contender.TEACHER)
    row: Row = {
        metric: {name: float(losses[f"{name}_{metric}_{horizon}"].mean()) for name in scored}
        for metric in ("mse", "mae")
    }
    row["gain"] = _gains(lambda name: losses[f"{name}_mse_{horizon}"], hour)
    student, twin = (losses[f"{name}_mae_{horizon}"] for name in (Contender.STUDENT, Contender.TWIN))
    row["gain_mae"] = asdict(gain_over(student, twin, hour))
    student, twin = (losses[f"{name}_mse_{horizon}_by_seed"] for name in (Contender.STUDENT, Contender.TWIN))
    row["gain_by_seed"] = (1 - student / twin).tolist()
    if piece == "ETTm1":
        row["timekd"] = dict(zip(("mse", "mae"), TIMEKD[horizon], strict=True))
    return row


def summarise_cell(origins: list[Losses]) -> Row:
    """The figures of one cell over its origins."""
    scored, by_origin = (*STUDENTS, Contender.TEACHER, Contender.SEASONAL_NAIVE_24H), gain_by_origin(origins)
    return {
        "n_train_windows": [int(losses["n_train"]) for losses in origins],
        "crps": {name: float(joined(origins, name).mean()) for name in scored},
        "gain": _gains(partial(joined, origins), joined(origins, "hour")),
        "gain_by_origin": by_origin,
        "gain_over_origins": over_origins(by_origin),
        "gain_by_seed": gain_by_seed(origins),
    }


def summarise(done: Mapping[Piece, Losses]) -> Row:
    """Both tables, with Holm-corrected p over each, of a gain (p_holm) and of harm (p_worse_holm)."""
    published: dict[str, Row] = {}
    by_cell: dict[str, list[Losses]] = {}
    parameters: dict[str, int] = {}
    for piece, losses in done.items():
        if isinstance(piece, Cell):
            by_cell.setdefault(piece.name, []).append(losses)
            continue
        parameters[piece] = int(losses["parameters"])
        published |= {f"{piece}-{h}": summarise_horizon(piece, losses, h) for h in protocol.HORIZONS}
    cells = {name: summarise_cell(origins) for name, origins in by_cell.items()}
    add_holm(published)
    add_holm(cells)
    return {"protocol": published, "student_parameters": parameters, "cells": cells}


def _gain_text(row: Row) -> str:
    gain = row["gain"]
    student = gain[Contender.STUDENT]
    return (
        f"{student['estimate']:>+8.1%}{student['low']:>+8.1%} … {student['high']:>+5.1%}{row['p_holm']:>8.3f}"
        f"{gain[Contender.UNPRIVILEGED]['estimate']:>+9.1%}{gain[Contender.PLACEBO]['estimate']:>+9.1%}"
    )


def table(figures: Row) -> str:
    """Both tables as text."""
    gain = f"{'gain':>8}{'95 % interval':>16}{'p Holm':>8}{'unpriv.':>9}{'placebo':>9}"
    columns = (Contender.TWIN, Contender.STUDENT, Contender.TEACHER)
    lines = []
    if figures["protocol"]:
        counted = ", ".join(f"{count:,} ({name})" for name, count in figures["student_parameters"].items())
        lines += [
            f"Published protocol, MSE/MAE and gain in MSE. Parameters of a student: {counted}.",
            "TimeKD chose its checkpoint by test error, ours is chosen on validation.",
            f"{'':<12}{'twin':>13}{'student':>13}{'teacher':>13}{'TimeKD':>13}{gain}{'in MAE':>8}",
        ]
    for name, row in figures["protocol"].items():
        texts = [f"{row['mse'][contender]:.3f}/{row['mae'][contender]:.3f}" for contender in columns]
        texts.append(f"{row['timekd']['mse']:.3f}/{row['timekd']['mae']:.3f}" if "timekd" in row else "–")
        in_mae = f"{row['gain_mae']['estimate']:>+8.1%}"
        lines.append(f"{name:<12}" + "".join(f"{text:>13}" for text in texts) + _gain_text(row) + in_mae)
    if figures["cells"]:
        lines += [
            "Hourly oil temperature, CRPS in °C, default recipe.",
            f"{'':<12}{'naive':>9}{'twin':>9}{'student':>9}{'teacher':>9}{gain}  by origin",
        ]
    for name, row in figures["cells"].items():
        scores = [row["crps"][contender] for contender in (Contender.SEASONAL_NAIVE_24H, *columns)]
        lines.append(
            f"{name:<12}"
            + "".join(f"{value:>9.4f}" for value in scores)
            + _gain_text(row)
            + "  "
            + " ".join(f"{value:+.1%}" for value in row["gain_by_origin"])
        )
    return "\n".join(lines)


def write(figures: Row) -> Path:
    """Write the JSON, in the repository where it is the whole run."""
    results = path_of("ETTm1").with_name("ett.json") if QUICK else RESULTS
    settings = {
        "protocol": {name: asdict(settings) for name, settings in protocol.SETTINGS.items()},
        "seeds": SEEDS,
        "origins": ORIGINS,
        "quick": QUICK,
        "torch": torch.__version__,
        "device": "cpu",
    }
    write_json(results, {**figures, "settings": settings})
    return results


def main() -> None:
    """Measure what is missing, write the JSON after each piece, and print the tables."""
    done: dict[Piece, Losses] = {}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for piece, losses in zip(pieces(), pool.map(losses_of, pieces()), strict=True):
            done[piece] = losses
            write(summarise(done))
    print(table(summarise(done)))


if __name__ == "__main__":
    main()
