"""Does a pretrained model belong into the average of a new home? Part of `make bench-accuracy`, or by itself:
`python -m benchmarks.members`.

The homes of `benchmarks.accuracy`, on the same windows: the network that would be registered, averaged with the simple
forecasts (`champion`, as there), and with the pretrained model as one more of them (`with_pretrained`,
`student.pretrained: fracast`), both as the flow would have issued them; the pretrained model by itself, and the
simple forecasts. The weights come from held-out blocks of the history; nothing is chosen on a test part.

Gains are those of `benchmarks.homes`: the mean of the logarithms over homes and origins, p over homes. Finished pieces
stay under TUTELAGE_HOME; the figures of a cell, and of all, stay until as many pieces are measured anew. QUICK=1 takes
one cell of two homes.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks import homes
from benchmarks.accuracy import FIRST_HOMES, RECIPE, Piece, dataset_of, inside, issued_by, members_of
from benchmarks.common import (
    COMMIT,
    ORIGINS,
    QUICK,
    Cell,
    Losses,
    Row,
    commits_of,
    measure_into,
    pieces_folder,
    scored_of,
    with_earlier,
)
from flows.homes import PACKAGE
from tutelage.distil.base import FittedSimple, SimpleForecasts, fit_simple
from tutelage.distil.blocks import BLOCKS, fit_students, fit_teachers
from tutelage.distil.pretrained import load_pretrained
from tutelage.forecasts import Contender, crps
from tutelage.judge.baselines import BASELINES, forecast_baselines
from tutelage.judge.verdict import REGISTRABLE, actual_values, choose

RESULTS = Path(__file__).parent / "results" / "members.json"
MODEL = "fracast"
HORIZONS, HISTORIES = ((24,), (28,)) if QUICK else ((24, 1), (28, 56, 100))


def every_piece() -> list[Piece]:
    """All pieces: the first origins first, a day ahead before an hour ahead."""
    numbers = FIRST_HOMES if QUICK else range(17)
    return [
        Piece("homes", Cell(horizon, days, origin), number)
        for origin in range(1 if QUICK else ORIGINS)
        for horizon in HORIZONS
        for days in HISTORIES
        for number in numbers
    ]


def without_pretrained(simple: FittedSimple) -> FittedSimple:
    """The same fitted forecasts without the pretrained model."""
    names = {name: weight for name, weight in simple.base.weights.items() if name is not Contender.PRETRAINED}
    blocks = ({name: each for name, each in block.items() if name in names} for block in simple.blocks)
    return FittedSimple(simple.base.weighed(names), tuple(blocks))


def measure(piece: Piece) -> Losses:
    """CRPS by test window, the 80 % interval's coverage, and the pretrained model's weight."""
    every_hour = dataset_of(piece)
    dataset = scored_of(every_hour)
    scored = torch.isin(every_hour.test, dataset.test).numpy()
    actual = actual_values(dataset, dataset.test)
    labels = {Contender.STUDENT: fit_teachers(dataset, RECIPE, seed=piece.cell.origin).labels}
    simple = fit_simple(dataset.whole(), dataset.blocks(BLOCKS), MODEL).alone
    losses: Losses = {}
    for name, members in (("champion", without_pretrained(simple)), ("with_pretrained", simple)):
        fitted = fit_students(dataset, labels, RECIPE, seed=piece.cell.origin, simple=SimpleForecasts(members, members))
        chosen = choose({each: fitted.held_out_crps[each] for each in REGISTRABLE})
        issued = issued_by(members_of(fitted, chosen, every_hour), every_hour)
        losses[name] = crps(issued.at(scored), actual).mean(axis=1)
        losses[f"coverage:{name}"] = np.array(inside(issued.at(scored), actual).mean())
        losses["weight"] = np.array(fitted.bases[chosen].weights.get(Contender.PRETRAINED, 0.0))
    forecasts = {name.value: each for name, each in forecast_baselines(dataset, dataset.test, BASELINES).items()}
    forecasts["pretrained"] = load_pretrained(MODEL)(dataset, dataset.test)
    return losses | {name: crps(each, actual).mean(axis=1) for name, each in forecasts.items()}


def summarise(done: Mapping[Piece, Losses], earlier: Row | None = None) -> Row:
    """By horizon and history: mean CRPS, coverage, and the gains of the average with the pretrained model.

    earlier: figures as these, of which a cell, or that of all, stays where fewer pieces of it, or none, were measured
    """
    measured = {}
    for horizon, days in {(piece.cell.horizon, piece.cell.history or 0) for piece in done}:
        of_cell = {p: each for p, each in done.items() if (p.cell.horizon, p.cell.history) == (horizon, days)}
        measured[horizon, days] = {"horizon": horizon, "history_days": days} | _figures(of_cell)
    before = {(cell["horizon"], cell["history_days"]): cell for cell in earlier["cells"]} if earlier else {}
    cells = with_earlier(measured, before)
    of_all = with_earlier({"all": _figures(done)} if done else {}, {"all": earlier["all"]} if earlier else {})
    return {"cells": [cells[key] for key in sorted(cells)], **of_all}


def _figures(done: Mapping[Piece, Losses]) -> Row:
    by_home = [(piece.series, losses) for piece, losses in done.items()]
    others = (COMMIT, "weight")
    names = [name for name in next(iter(done.values())) if not name.startswith("coverage:") and name not in others]
    mean = {name: float(np.mean([each[name].mean() for each in done.values()])) for name in names}
    floor = min((name.value for name in BASELINES if name.value in mean), key=mean.__getitem__)
    return {
        "pieces": len(done),
        COMMIT: commits_of(done.values()),
        "origins": len({piece.cell.origin for piece in done}),
        "crps": mean,
        "floor": floor,
        "coverage_80": {
            name: float(np.mean([each[f"coverage:{name}"] for each in done.values()]))
            for name in ("champion", "with_pretrained")
        },
        "weight": float(np.mean([each["weight"] for each in done.values()])),
        "gains": {
            f"with_pretrained over {other}": homes.gain_over_homes(by_home, "with_pretrained", other)
            for other in ("champion", "pretrained", floor)
        },
    }


def folder_of_pieces() -> Path:
    """Where the pieces' files are."""
    return pieces_folder("members", "benchmarks.members", homes.SPEC, packages=(PACKAGE, MODEL), recipe=RECIPE)


def main() -> None:
    """Measure what is missing; write the JSON after each piece, and print the gains."""
    folder = folder_of_pieces()
    results = folder / "members.json" if QUICK else RESULTS
    paths = {piece: folder / f"{piece.name}.npz" for piece in every_piece()}
    figures = measure_into(results, paths, measure, summarise)
    for cell in figures["cells"]:
        gains = "".join(f"{name:>34}{row['gain']:>+8.1%}" for name, row in cell["gains"].items())
        print(f"{cell['horizon']:>3} h{cell['history_days']:>4} d{cell['pieces']:>4} pieces{gains}")
    print(json.dumps({name: {"gain": r["gain"], "p": r["p"]} for name, r in figures["all"]["gains"].items()}, indent=2))


if __name__ == "__main__":
    main()
