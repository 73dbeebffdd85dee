"""ETT: the published protocol against published figures, and hourly students with 15-minute privilege.

The files are not in the repository (CC BY-ND 4.0): name the folder with ETTh1.csv and ETTm1.csv in TUTELAGE_ETT. They
are checked by their SHA-256. `python -m benchmarks.ett`, or as a part of `make bench-efficacy`; QUICK=1: minutes.

1. `benchmarks.ett_protocol`: ETTh1 and ETTm1, 96 steps in, five horizons, MSE and MAE over all test windows.
2. `benchmarks.ett_cells`: the pipeline's default recipe on hourly means of the oil temperature, short histories, CRPS.

Gains are over the twin, mean of the seeds' losses, with the paired block bootstrap of `tutelage.comparison` in blocks
of a week; p is one-sided and Holm-corrected over the cells of each table. The bootstrap holds the networks fixed.
Finished pieces are kept under TUTELAGE_HOME and not computed again.
"""

import inspect
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks import ett_cells
from benchmarks import ett_protocol as protocol
from benchmarks.ett_cells import cells, measure_cell
from benchmarks.pairs import KINDS, ORIGINS, QUICK, SEEDS, TAUGHT_BY, Cell, code_digest, holm, kept
from tutelage.comparison import Gain, gain_over
from tutelage.files import file_digest, value_digest, write_json

RESULTS = Path(__file__).parent / "results" / "ett.json"
TIMEKD = {
    24: (0.202, 0.258),
    36: (0.259, 0.302),
    48: (0.272, 0.323),
    96: (0.305, 0.342),
    192: (0.355, 0.367),
}
"""TimeKD's published MSE and MAE on ETTm1, arXiv:2505.02138. Those on ETTh1 were not at hand."""
Losses = dict[str, np.ndarray]
Piece = str | Cell
"""ETTh1 or ETTm1 under the published protocol, or one cell at one origin."""


def pieces() -> list[Piece]:
    """All that is measured, the protocol first."""
    return [*(["ETTh1"] if QUICK else protocol.STEPS_A_DAY), *cells()]


def measure(piece: Piece) -> Losses:
    """All of one piece's errors, by test window."""
    if isinstance(piece, Cell):
        return measure_cell(piece)
    series = protocol.make_series(protocol.read_values(piece), protocol.STEPS_A_DAY[piece])
    settings = protocol.SETTINGS[piece]
    return protocol.measure(series, protocol.quick(settings) if QUICK else settings)


def path_of(piece: Piece) -> Path:
    """Where a piece's figures are kept: under what they were computed by, so that old ones are never taken."""
    if isinstance(piece, Cell):
        code = [code_digest(), file_digest(Path(ett_cells.__file__)), file_digest(ett_cells.SPEC)]
        name = f"{piece.name}-{piece.origin}"
    else:
        layers = [inspect.getsource(layer) for layer in (protocol.MemberLinear, protocol.MemberDropout)]
        code = [file_digest(Path(protocol.__file__)), *layers]
        name = piece
    home = Path(os.environ.get("TUTELAGE_HOME", "var"))
    return home / "benchmarks" / f"ett-{value_digest([*code, QUICK])[:12]}" / f"{name}.npz"


def kept_of(piece: Piece) -> Losses:
    """A piece's figures, measured where they are not kept yet."""
    return kept(path_of(piece), partial(measure, piece))


def _gains(of: Callable[[str], np.ndarray], hour: np.ndarray) -> dict[str, dict[str, float]]:
    def over(kind: str, reference: str) -> Gain:
        return gain_over(of(kind), of(reference), hour, seed=0)

    gains = {kind: over(kind, "twin").as_dict() for kind in TAUGHT_BY}
    return {**gains, "of_privilege": over("privileged", "no_privilege").as_dict()}


def _by_seed(student: np.ndarray, twin: np.ndarray) -> list[float]:
    return [float(gain) for gain in 1 - student / twin]


def summarise_horizon(name: str, found: Losses, horizon: int) -> dict[str, object]:
    """One row of the protocol's table: MSE, MAE and the gain in MSE and MAE over the twin."""
    steps_an_hour = protocol.STEPS_A_DAY[name] // 24
    hour = found[f"origin_{horizon}"] // steps_an_hour
    row: dict[str, object] = {
        metric: {kind: float(found[f"{kind}_{metric}_{horizon}"].mean()) for kind in (*KINDS, "teacher")}
        for metric in ("mse", "mae")
    }
    row["gain"] = _gains(lambda kind: found[f"{kind}_mse_{horizon}"], hour)
    mae = gain_over(found[f"privileged_mae_{horizon}"], found[f"twin_mae_{horizon}"], hour, seed=0)
    row["gain_mae"] = mae.as_dict()
    row["gain_by_seed"] = _by_seed(found[f"privileged_mse_{horizon}_by_seed"], found[f"twin_mse_{horizon}_by_seed"])
    if name == "ETTm1":
        row["timekd"] = dict(zip(("mse", "mae"), TIMEKD[horizon], strict=True))
    return row


def summarise_cell(origins: list[Losses]) -> dict[str, object]:
    """The figures of one cell over its origins."""

    def joined(kind: str) -> np.ndarray:
        return np.concatenate([losses[kind] for losses in origins])

    return {
        "n_train_windows": [int(losses["n_train"]) for losses in origins],
        "crps": {kind: float(joined(kind).mean()) for kind in (*KINDS, "teacher", "seasonal_naive_24h")},
        "gain": _gains(joined, joined("hour")),
        "gain_by_origin": [float(1 - losses["privileged"].mean() / losses["twin"].mean()) for losses in origins],
        "gain_by_seed": _by_seed(
            np.sum([losses["privileged_by_seed"] for losses in origins], axis=0),
            np.sum([losses["twin_by_seed"] for losses in origins], axis=0),
        ),
    }


def summarise(found: dict[Piece, Losses]) -> dict[str, object]:
    """Both tables, with Holm-corrected p over each, of a gain (p_holm) and of harm (p_worse_holm)."""
    published: dict[str, dict[str, object]] = {}
    by_cell: dict[str, list[Losses]] = {}
    parameters: dict[str, int] = {}
    for piece, losses in found.items():
        if isinstance(piece, Cell):
            by_cell.setdefault(piece.name, []).append(losses)
            continue
        parameters[piece] = int(losses["parameters"])
        published |= {f"{piece}-{h}": summarise_horizon(piece, losses, h) for h in protocol.HORIZONS}
    cells = {name: summarise_cell(origins) for name, origins in by_cell.items()}
    for rows in (published, cells):
        p = {name: row["gain"]["privileged"]["p"] for name, row in rows.items()}  # type: ignore[index]
        better, worse = holm(p), holm({name: 1 - value for name, value in p.items()})
        for name, row in rows.items():
            row |= {"p_holm": better[name], "p_worse_holm": worse[name]}
    return {"protocol": published, "student_parameters": parameters, "cells": cells}


def _gain_text(row: dict[str, object]) -> str:
    gain = row["gain"]
    mine = gain["privileged"]  # type: ignore[index]
    return (
        f"{mine['estimate']:>+8.1%}{mine['low']:>+8.1%} … {mine['high']:>+5.1%}{row['p_holm']:>8.3f}"
        f"{gain['no_privilege']['estimate']:>+9.1%}{gain['placebo']['estimate']:>+9.1%}"  # type: ignore[index]
    )


def table(found: dict[str, object]) -> str:
    """Both tables as text."""
    gain = f"{'gain':>8}{'95 % interval':>16}{'p Holm':>8}{'no priv.':>9}{'placebo':>9}"
    lines = []
    if found["protocol"]:
        counted = ", ".join(f"{count:,} ({name})" for name, count in found["student_parameters"].items())  # type: ignore[attr-defined]
        lines += [
            f"Published protocol, MSE/MAE and gain in MSE. Parameters of a student: {counted}.",
            "TimeKD chose its checkpoint by test error, ours is chosen on validation.",
            f"{'':<12}{'twin':>13}{'student':>13}{'teacher':>13}{'TimeKD':>13}{gain}{'in MAE':>8}",
        ]
    for name, row in found["protocol"].items():  # type: ignore[attr-defined]
        figures = [f"{row['mse'][kind]:.3f}/{row['mae'][kind]:.3f}" for kind in ("twin", "privileged", "teacher")]
        figures.append(f"{row['timekd']['mse']:.3f}/{row['timekd']['mae']:.3f}" if "timekd" in row else "–")
        in_mae = f"{row['gain_mae']['estimate']:>+8.1%}"
        lines.append(f"{name:<12}" + "".join(f"{text:>13}" for text in figures) + _gain_text(row) + in_mae)
    if found["cells"]:
        lines += [
            "Hourly oil temperature, CRPS in °C, default recipe.",
            f"{'':<12}{'naive':>9}{'twin':>9}{'student':>9}{'teacher':>9}{gain}  by origin",
        ]
    for name, row in found["cells"].items():  # type: ignore[attr-defined]
        figures = [row["crps"][kind] for kind in ("seasonal_naive_24h", "twin", "privileged", "teacher")]
        lines.append(
            f"{name:<12}"
            + "".join(f"{value:>9.4f}" for value in figures)
            + _gain_text(row)
            + "  "
            + " ".join(f"{value:+.1%}" for value in row["gain_by_origin"])
        )
    return "\n".join(lines)


def write(found: dict[str, object]) -> Path:
    """Write the JSON, in the repository where it is the whole run."""
    results = path_of("ETTm1").with_name("ett.json") if QUICK else RESULTS
    settings = {
        "protocol": {name: vars(settings) for name, settings in protocol.SETTINGS.items()},
        "seeds": SEEDS,
        "origins": ORIGINS,
        "quick": QUICK,
        "torch": torch.__version__,
        "device": "cpu",
    }
    write_json(results, {**found, "settings": settings})
    return results


def main() -> None:
    """Measure what is missing, write the JSON after each piece, and print the tables."""
    done: dict[Piece, Losses] = {}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for piece, losses in zip(pieces(), pool.map(kept_of, pieces()), strict=True):
            done[piece] = losses
            write(summarise(done))
    print(table(summarise(done)))


if __name__ == "__main__":
    main()
