"""ETT: the published protocol against published figures, and hourly students with 15-minute privilege.

The files are not in the repository (CC BY-ND 4.0): name the folder with ETTh1.csv and ETTm1.csv in TUTELAGE_ETT. They
are checked by their SHA-256. `python -m benchmarks.ett`, or as a part of `make bench-efficacy`; QUICK=1: minutes.

1. `benchmarks.ett_protocol`: ETTh1 and ETTm1, 96 steps in, five horizons, MSE and MAE over all test windows.
2. `benchmarks.ett_cells`: the pipeline's default recipe on hourly means of the oil temperature, short histories, CRPS.

Gains are over the twin, mean of the seeds' losses, with the interval of `tutelage.judge.comparison`; p is one-sided
and Holm-corrected over the cells of each table. The interval holds the networks fixed. Finished pieces stay under
TUTELAGE_HOME and are not computed again; a row of the results stays until as many pieces of it are measured anew.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks import ett_protocol as protocol
from benchmarks.common import (
    COMMIT,
    ORIGINS,
    QUICK,
    RECIPES,
    SEEDS,
    Cell,
    Losses,
    Row,
    add_holm,
    cells_table,
    commits_of,
    measure_into,
    pieces_folder,
    summarise_cell,
    with_earlier,
)
from benchmarks.ett_cells import SPEC, every_cell, measure_cell
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
    """A piece's file."""
    if isinstance(piece, Cell):
        return pieces_folder("ett", "benchmarks.ett_cells", SPEC) / f"{piece.name}-{piece.origin}.npz"
    return pieces_folder("ett", "benchmarks.ett_protocol") / f"{piece}.npz"


def summarise_horizon(piece: str, losses: Losses, horizon: int) -> Row:
    """One row of the protocol's table: MSE, MAE and the gain in MSE and MAE over the twin."""
    steps_an_hour = protocol.STEPS_A_DAY[piece] // 24
    hour = losses[f"origin_{horizon}"] // steps_an_hour
    scored = (*protocol.STUDENTS, Contender.TEACHER)
    row: Row = {"pieces": 1, COMMIT: commits_of([losses])} | {
        metric: {name: float(losses[f"{name}_{metric}_{horizon}"].mean()) for name in scored}
        for metric in ("mse", "mae")
    }
    mse = {name: losses[f"{name}_mse_{horizon}"] for name in protocol.STUDENTS}
    row["gain"] = {name: asdict(gain_over(mse[name], mse[Contender.TWIN], hour)) for name in RECIPES}
    row["gain_of_privilege"] = asdict(gain_over(mse[Contender.STUDENT], mse[Contender.UNPRIVILEGED], hour))
    student, twin = (losses[f"{name}_mae_{horizon}"] for name in (Contender.STUDENT, Contender.TWIN))
    row["gain_mae"] = asdict(gain_over(student, twin, hour))
    student, twin = (losses[f"{name}_mse_{horizon}_by_seed"] for name in (Contender.STUDENT, Contender.TWIN))
    row["gain_by_seed"] = (1 - student / twin).tolist()
    if piece == "ETTm1":
        row["timekd"] = dict(zip(("mse", "mae"), TIMEKD[horizon], strict=True))
    return row


def summarise(done: Mapping[Piece, Losses], earlier: Row | None = None) -> Row:
    """Both tables, with Holm-corrected p over each, of a gain (p_holm) and of harm (p_worse_holm).

    earlier: figures as these, whose rows stay where fewer pieces, or none, were measured
    """
    before = earlier or {"protocol": {}, "student_parameters": {}, "cells": {}}
    published: dict[str, Row] = {}
    by_cell: dict[str, list[Losses]] = {}
    parameters: dict[str, int] = {}
    for piece, losses in done.items():
        if isinstance(piece, Cell):
            by_cell.setdefault(piece.name, []).append(losses)
            continue
        parameters[piece] = int(losses["parameters"])
        published |= {f"{piece}-{h}": summarise_horizon(piece, losses, h) for h in protocol.HORIZONS}
    published = with_earlier(published, before["protocol"])
    cells = with_earlier({name: summarise_cell(origins) for name, origins in by_cell.items()}, before["cells"])
    add_holm(published)
    add_holm(cells)
    return {"protocol": published, "student_parameters": before["student_parameters"] | parameters, "cells": cells}


def table(figures: Row) -> str:
    """Both tables as text."""
    columns = (Contender.TWIN, Contender.STUDENT, Contender.TEACHER)
    lines = []
    if figures["protocol"]:
        counted = ", ".join(f"{count:,} ({name})" for name, count in figures["student_parameters"].items())
        lines += [
            f"Published protocol, MSE/MAE and gain in MSE. Parameters of a student: {counted}.",
            "TimeKD chose its checkpoint by test error, ours is chosen on validation.",
            f"{'':<12}{'twin':>13}{'student':>13}{'teacher':>13}{'TimeKD':>13}{'gain':>8}{'95 % interval':>16}"
            f"{'p Holm':>8}{'unpriv.':>9}{'placebo':>9}{'in MAE':>8}",
        ]
    for name, row in figures["protocol"].items():
        texts = [f"{row['mse'][contender]:.3f}/{row['mae'][contender]:.3f}" for contender in columns]
        texts.append(f"{row['timekd']['mse']:.3f}/{row['timekd']['mae']:.3f}" if "timekd" in row else "–")
        g = row["gain"]
        student = g[Contender.STUDENT]
        lines.append(
            f"{name:<12}"
            + "".join(f"{text:>13}" for text in texts)
            + f"{student['estimate']:>+8.1%}{student['low']:>+8.1%} … {student['high']:>+5.1%}{row['p_holm']:>8.3f}"
            + f"{g[Contender.UNPRIVILEGED]['estimate']:>+9.1%}{g[Contender.PLACEBO]['estimate']:>+9.1%}"
            + f"{row['gain_mae']['estimate']:>+8.1%}"
        )
    if figures["cells"]:
        lines += ["Hourly oil temperature, CRPS in °C, default recipe.", cells_table(figures["cells"])]
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, write the JSON after each piece, and print the tables."""
    results = path_of("ETTm1").with_name("ett.json") if QUICK else RESULTS
    settings = {
        "protocol": {name: asdict(settings) for name, settings in protocol.SETTINGS.items()},
        "seeds": SEEDS,
        "origins": ORIGINS,
        "device": "cpu",
    }
    print(table(measure_into(results, {piece: path_of(piece) for piece in pieces()}, measure, summarise, settings)))


if __name__ == "__main__":
    main()
