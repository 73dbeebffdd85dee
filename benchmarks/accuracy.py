"""Is the forecaster better than what its user could take instead? `make bench-accuracy`.

Three sources: the household (minutes, sub-meters), an electrical transformer's oil temperature (ETT, where
TUTELAGE_ETT names its folder), and seventeen homes with hourly meters. Cells: hours ahead and days of history, each at
several origins: test parts back to back from the end of the data, of which every fifth issue hour is scored (5 and 24
share no divisor).

Ours: the network that would be registered, student or twin by the held-out blocks, averaged with its base, and the
twin, both forecast hour by hour and moved by what had come true as in the flow (`tutelage.model.aggregation`); of the
champion also with its widths alone moved (`fixed_weights`), and as the model forecasts (`uncorrected`). Default recipe,
one replicate. Peers, on the same windows and history: the simple forecasts of `tutelage.judge.baselines`; LightGBM
quantile regression, fitted on training and validation part; NHITS and MSTL (`benchmarks/peers.py`); a pretrained model
as it comes, which may have seen the household and ETT, and has not seen the homes. Nothing of the peers moves with what
came true; `relative_uncorrected` compares them with what the champion is without that, too.

Nothing is chosen on a test part; the floor and the best peer of a cell are the best there, with hindsight. Finished
pieces stay under TUTELAGE_HOME. A cell in the results takes the place of an earlier one once it has as many pieces;
each names the commits of its pieces. QUICK=1 takes one origin, few cells and two homes.
"""

import datetime as dt
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

import lightgbm
import numpy as np
import polars as pl
import torch

from benchmarks import ett_cells
from benchmarks.common import (
    COMMIT,
    LOOKBACK_HOURS,
    ORIGINS,
    QUICK,
    THINNED_HOURS,
    Cell,
    Losses,
    Row,
    commits_of,
    make_cell_dataset,
    measure_pieces,
    pieces_folder,
    scored_of,
    with_earlier,
)
from benchmarks.homes import SPEC as HOMES_SPEC
from benchmarks.homes import home_panels, span_of
from benchmarks.household_cells import SPEC as HOUSEHOLD_SPEC
from benchmarks.household_cells import load_household
from benchmarks.peers import LEVELS, PEERS
from flows.homes import PACKAGE
from tutelage.data.grid import HOURLY
from tutelage.data.windows import LEAST_WINDOWS, Panel
from tutelage.distil.base import forecast_simple
from tutelage.distil.blocks import FittedStudents, fit_students, fit_teachers
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pretrained import load_pretrained
from tutelage.distil.recipe import Recipe, TeacherRecipe
from tutelage.distil.students import forecast_students
from tutelage.errors import DataError, TutelageError
from tutelage.files import write_json, written_whole
from tutelage.forecasts import Contender, Forecasts, crps, interpolated
from tutelage.judge.baselines import BASELINES, forecast_baselines
from tutelage.judge.metrics import quantile_at
from tutelage.judge.verdict import REGISTRABLE, actual_values, choose
from tutelage.model.aggregation import Members, as_issued
from tutelage.model.days import recent_days
from tutelage.model.linear import DAY_HOURS
from tutelage.model.trees import PAST_DAYS, tree_columns

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
RECIPE = Recipe(teacher=TeacherRecipe(more_views=())) if QUICK else Recipe()
LONG_DAYS = 400
FIRST_HOMES = (0, 6) if QUICK else (0, 6, 12)
HISTORIES = {
    "household": (100,) if QUICK else (50, 100, LONG_DAYS),
    "ett": (50,) if QUICK else (50, 100),
    "homes": (28,) if QUICK else (28, 56, 100),
}
TEST_DAYS = {"household": 60, "ett": 60, "homes": 30}
SEEN = {"pretrained": ("household", "ett")}
"""Peers that may have seen a source in their training."""
OURS = ("champion", "twin", "fixed_weights", "uncorrected")


@dataclass(frozen=True)
class Piece:
    """One series at one origin of a cell; of the homes, `series` is the number of the home."""

    source: str
    cell: Cell
    series: int = 0

    @property
    def name(self) -> str:
        """The piece's name in files: homes-24h-28d-home3-origin0."""
        series = f"-home{self.series + 1}" if self.source == "homes" else ""
        return f"{self.source}-{self.cell.name}{series}-origin{self.cell.origin}"


@cache
def _source(name: str, series: int) -> tuple[Panel, dt.datetime, dt.datetime]:
    """A source's panel, the start of its first hour and the end of its last."""
    if name == "household":
        return load_household()
    if name == "ett":
        return ett_cells.load_transformer()
    panel = home_panels()[series]
    return panel, *span_of(panel)


def every_piece() -> list[Piece]:
    """All pieces, ordered so that the first of them are already representative.

    Some homes come before the others, the long histories' later origins after all else, and the first origins first.
    """
    sources = [name for name in HISTORIES if name != "ett" or "TUTELAGE_ETT" in os.environ]
    pieces = [
        Piece(source, Cell(horizon, days, origin), series)
        for source in sources
        for days in HISTORIES[source]
        for horizon in LOOKBACK_HOURS
        for origin in range(ORIGINS)
        for series in ((*FIRST_HOMES, *({*range(17)} - {*FIRST_HOMES})) if source == "homes" else (0,))
    ]
    late = {
        piece: (piece.source == "homes" and piece.series not in FIRST_HOMES)
        or (piece.cell.history == LONG_DAYS and piece.cell.origin > 0)
        for piece in pieces
    }
    return sorted((piece for piece in pieces if not (QUICK and late[piece])), key=lambda p: (late[p], p.cell.origin))


def dataset_of(piece: Piece) -> WindowDataset:
    """The piece's windows.

    Raises DataError where a part has too few.
    """
    panel, first, end = _source(piece.source, piece.series)
    dataset = make_cell_dataset(panel, piece.cell, first, end, test_days=TEST_DAYS[piece.source])
    if min(len(dataset.train), len(dataset.validation), len(dataset.test)) < LEAST_WINDOWS:
        raise DataError(f"{piece.name}: a part has fewer than {LEAST_WINDOWS} windows")
    return dataset


def write_input(piece: Piece, path: Path) -> None:
    """Write what `benchmarks/peers.py` needs of a piece: the target from the history on, with missing hours filled."""
    dataset = scored_of(dataset_of(piece))
    hour, horizon = dataset.panel.step.numpy(), dataset.horizon
    first, last = int(np.searchsorted(hour, dataset.first_step)), int(dataset.test[-1]) + horizon
    target = pl.Series(dataset.panel.observed[first:last, 0].double().numpy()).fill_nan(None)
    for season in (DAY_HOURS, 7 * DAY_HOURS):
        target = target.fill_null(target.shift(season))
    # The clock is complete, also where a reading is not.
    known = np.nan_to_num(dataset.panel.known[first:last].double().numpy())
    with written_whole(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            target=target.fill_null(strategy="forward").fill_null(strategy="backward").to_numpy(),
            known=known,
            origins=dataset.test.numpy() - first,
            first_test=np.array(int(dataset.test[0]) - first),
            horizon=np.array(horizon),
            actual=actual_values(dataset, dataset.test),
        )


def with_peers(losses: Losses, path: Path) -> Losses:
    """A piece's losses with those of the peers that `benchmarks/peers.py` has forecast it by."""
    losses = dict(losses)
    for peer in PEERS:
        result = path.with_name(f"{path.stem}.{peer}.npz")
        if result.exists():
            with np.load(result) as file, np.load(path.with_name(f"{path.stem}.input.npz")) as given:
                forecast, actual = interpolated(file["quantiles"], LEVELS), given["actual"]
            losses[peer] = crps(forecast, actual).mean(axis=1)
            losses[f"coverage:{peer}"] = np.array(inside(forecast, actual).mean())
    return losses


def inside(forecasts: Forecasts, actual: np.ndarray) -> np.ndarray:
    """Whether each actual value is in the 80 % interval."""
    return (actual >= quantile_at(forecasts, 0.1)) & (actual <= quantile_at(forecasts, 0.9))


def boosted_quantiles(dataset: WindowDataset) -> Forecasts:
    """LightGBM quantile regression as its user would set it up: one model for each level, on all windows.

    Columns and target are those of `tutelage.model.trees`, more and larger trees than there.
    """
    whole, last = dataset.whole().train, dataset.long_past(dataset.test, DAY_HOURS)[:, -1, 0].double().numpy()
    rows, ahead = (_boosted_rows(dataset, origins) for origins in (whole, dataset.test))
    change = dataset.truth(whole) - dataset.long_past(whole, DAY_HOURS)[:, -1:, 0]
    parameters = {
        "objective": "quantile", "learning_rate": 0.06, "num_leaves": 15, "min_data_in_leaf": 60,
        "feature_fraction_bynode": 0.5, "feature_pre_filter": False, "seed": 0, "num_threads": 1, "verbose": -1,
    }  # fmt: skip
    table = lightgbm.Dataset(rows, change.double().numpy().ravel(), params=parameters)
    every = [
        np.asarray(lightgbm.train(parameters | {"alpha": level}, table, num_boost_round=150).predict(ahead))
        for level in LEVELS
    ]
    native = np.sort(np.stack(every, axis=-1).reshape(len(last), dataset.horizon, -1), axis=-1)
    return interpolated(native + last[:, None, None], LEVELS)


def _boosted_rows(dataset: WindowDataset, origins: torch.Tensor) -> np.ndarray:
    past = dataset.long_past(origins, PAST_DAYS * DAY_HOURS)[..., 0]
    recent = recent_days(past, PAST_DAYS, of_day=DAY_HOURS)
    return tree_columns(recent, dataset.student_inputs(origins)[1], grid=HOURLY).flatten(0, 1).numpy()


def members_of(fitted: FittedStudents, name: Contender, dataset: WindowDataset) -> Members:
    """What a contender's forecasts of the test part are averaged from, hour by hour."""
    base = fitted.bases[name]
    [network] = forecast_students(fitted.trained.networks[name], dataset, dataset.test)
    return base.members(network, forecast_simple(base, dataset, dataset.test))


def issued_by(members: Members, dataset: WindowDataset) -> Forecasts:
    """The forecasts of the test part as the flow would issue them."""
    return as_issued(members, dataset.panel.step[dataset.test].numpy(), actual_values(dataset, dataset.test))


def measure(piece: Piece) -> Losses:
    """CRPS by test window and the 80 % interval's coverage of everyone, and the weight of the chosen network."""
    every_hour = dataset_of(piece)
    dataset = scored_of(every_hour)
    scored = torch.isin(every_hour.test, dataset.test).numpy()
    actual = actual_values(dataset, dataset.test)
    teachers = fit_teachers(dataset, RECIPE, seed=piece.cell.origin)
    fitted = fit_students(dataset, {Contender.STUDENT: teachers.labels}, RECIPE, seed=piece.cell.origin)
    chosen = choose({name: fitted.held_out_crps[name] for name in REGISTRABLE})
    forecasts: dict[str, Forecasts] = {}
    for name, contender in (("champion", chosen), ("twin", Contender.TWIN)):
        members = members_of(fitted, contender, every_hour)
        forecasts[name] = issued_by(members, every_hour).at(scored)
        if name == "champion":
            average = members.average()
            as_one = Members({"average": 1.0}, average.mean[None], average.quantiles[None], members.atom)
            forecasts["fixed_weights"] = issued_by(as_one, every_hour).at(scored)
            forecasts["uncorrected"] = average.at(scored)
    forecasts |= {name.value: each for name, each in forecast_baselines(dataset, dataset.test, BASELINES).items()}
    forecasts["boosted"] = boosted_quantiles(dataset)
    forecasts["pretrained"] = load_pretrained("fracast")(dataset, dataset.test)
    losses = {name: crps(each, actual).mean(axis=1) for name, each in forecasts.items()}
    covered = {f"coverage:{name}": np.array(inside(each, actual).mean()) for name, each in forecasts.items()}
    share = np.array(fitted.bases[chosen].network_share)
    return losses | covered | {"network_share": share}


def summarise(done: dict[Piece, Losses], earlier: Sequence[Row] = ()) -> Row:
    """All cells of which a piece was measured, and the summary over them.

    Of several homes a cell's CRPS is the mean over homes and origins.

    earlier: cells that stay where fewer pieces, or none, were measured
    """
    by_cell: dict[tuple[str, int, int], list[Losses]] = {}
    pieces: dict[tuple[str, int, int], list[Piece]] = {}
    for piece, losses in done.items():
        key = (piece.source, piece.cell.horizon, piece.cell.history or 0)
        by_cell.setdefault(key, []).append(losses)
        pieces.setdefault(key, []).append(piece)
    measured = {key: _cell(key, by_cell[key], pieces[key]) for key in by_cell}
    by_key = with_earlier(measured, {_key(cell): cell for cell in earlier})
    cells = [by_key[key] for key in sorted(by_key)]
    return {
        "cells": cells,
        "summary": {
            "relative_to_best_peer": _relative(cells, "champion"),
            "relative_with_fixed_weights": _relative(cells, "fixed_weights"),
            "relative_uncorrected": _relative(cells, "uncorrected"),
            "worst_cell_vs_floor": max(cell["crps"]["champion"] / cell["crps"][cell["floor"]] for cell in cells),
            "cells_won": sum(cell["crps"]["champion"] < cell["crps"][cell["best_peer"]] for cell in cells),
            "cells": len(cells),
            "coverage_in_77_83": fmean(0.77 <= cell["coverage_80"]["champion"] <= 0.83 for cell in cells),
        },
    }


def _relative(cells: Sequence[Row], name: str) -> float | None:
    """The geometric mean over cells of a CRPS over the best peer's; None where an earlier cell lacks it."""
    if any(name not in cell["crps"] for cell in cells):
        return None
    return math.exp(fmean(math.log(cell["crps"][name] / cell["crps"][cell["best_peer"]]) for cell in cells))


def _key(cell: Row) -> tuple[str, int, int]:
    return cell["dataset"], cell["horizon"], cell["history_days"]


def _cell(key: tuple[str, int, int], losses: list[Losses], pieces: list[Piece]) -> Row:
    source, horizon, days = key
    # A peer that not all of the cell's pieces have is compared on those that have it.
    names = [name for name in losses[0] if all(f"coverage:{name}" in each for each in losses)]
    mean = {name: fmean(float(each[name].mean()) for each in losses) for name in names}
    may_have_seen = [name for name, sources in SEEN.items() if source in sources]
    peers = [name for name in names if name not in (*OURS, *may_have_seen)]
    floor = [name.value for name in BASELINES if name.value in names]
    return {
        "dataset": source,
        "horizon": horizon,
        "history_days": days,
        "pieces": len(pieces),
        COMMIT: commits_of(losses),
        "origins": len({piece.cell.origin for piece in pieces}),
        "crps": mean,
        "coverage_80": {name: fmean(float(each[f"coverage:{name}"]) for each in losses) for name in names},
        "network_share": fmean(float(each["network_share"]) for each in losses),
        "partly": {
            name: _partly(name, losses) for name in PEERS if name not in names and any(name in e for e in losses)
        },
        "floor": min(floor, key=mean.__getitem__),
        "best_peer": min(peers, key=mean.__getitem__),
        "may_have_seen": may_have_seen,
    }


def _partly(peer: str, losses: list[Losses]) -> Row:
    """A peer's CRPS and the champion's on the pieces that have it, and their number."""
    there = [each for each in losses if peer in each]
    crps_of = {name: fmean(float(each[name].mean()) for each in there) for name in (peer, "champion")}
    return {"pieces": len(there), "crps": crps_of[peer], "champion": crps_of["champion"]}


def table(figures: Row) -> str:
    """The cells as text: CRPS of champion, twin and peers.

    In brackets, who may have seen the data. Of a peer that has only some of a cell's pieces: its CRPS over the
    champion's there, and their number.
    """
    shown = ("champion", "twin", "ridge", "boosted", *PEERS, "pretrained")
    heads = "".join(f"{name:>12}" for name in shown)
    lines = [f"{'cell':<20}{'pieces':>7}{heads}  {'floor':<28}{'vs best peer':>13}{'80 %':>7}"]
    for cell in figures["cells"]:
        crps_by_name = {name: f"{value:.4f}" for name, value in cell["crps"].items()}
        crps_by_name |= {name: f"({crps_by_name[name]})" for name in cell["may_have_seen"]}
        for name, each in cell["partly"].items():
            crps_by_name[name] = f"{each['crps'] / each['champion'] - 1:+.0%} of {each['pieces']}"
        best = cell["crps"][cell["best_peer"]]
        lines.append(
            f"{cell['dataset']:<10}{cell['horizon']:>3} h{cell['history_days']:>4} d{cell['pieces']:>6} "
            + "".join(f"{crps_by_name.get(name, '-'):>12}" for name in shown)
            + f"  {cell['crps'][cell['floor']]:.4f} {cell['floor']:<21}"
            + f"{cell['crps']['champion'] / best - 1:>+13.1%}{cell['coverage_80']['champion']:>7.0%}"
        )
    return "\n".join(lines)


def folder_of_pieces() -> Path:
    """Where the pieces' files are."""
    specs = (HOUSEHOLD_SPEC, ett_cells.SPEC, HOMES_SPEC)
    return pieces_folder("accuracy", "benchmarks.accuracy", *specs, packages=(PACKAGE, "fracast"), recipe=RECIPE)


def write_inputs() -> Path:
    """Write the inputs of `benchmarks/peers.py` that are missing, and return their folder."""
    folder = folder_of_pieces()
    for piece in every_piece():
        path = folder / f"{piece.name}.input.npz"
        try:
            if not path.exists():
                write_input(piece, path)
        except TutelageError as error:
            print(f"left out: {error}", file=sys.stderr, flush=True)
    return folder


def main() -> None:
    """Measure what is missing; print the table and write the JSON after each piece."""
    folder = folder_of_pieces()
    results = folder / "accuracy.json" if QUICK else RESULTS
    pieces = {piece: folder / f"{piece.name}.npz" for piece in every_piece()}
    settings = {"origins": ORIGINS, "test_days": TEST_DAYS, "scored_hours": THINNED_HOURS, "quick": QUICK}
    settings |= {"pieces": len(pieces), "torch": torch.__version__}
    earlier = json.loads(results.read_text(encoding="utf-8"))["cells"] if results.exists() else []
    done: dict[Piece, Losses] = {}
    for piece, losses in measure_pieces(pieces, measure):
        done[piece] = with_peers(losses, pieces[piece])
        write_json(results, summarise(done, earlier) | {"settings": settings | {"measured": len(done)}})
    figures = summarise(done, earlier)
    print(table(figures))
    print(json.dumps(figures["summary"], indent=2))


if __name__ == "__main__":
    print(write_inputs()) if sys.argv[1:] == ["inputs"] else main()
