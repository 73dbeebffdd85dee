"""ETT: the published protocol against published figures, and hourly students with 15-minute privilege.

The files are not in the repository (CC BY-ND 4.0): name the folder with ETTh1.csv and ETTm1.csv in TUTELAGE_ETT. They
are checked by their SHA-256. `python -m benchmarks.ett`, or as a part of `make bench-efficacy`; QUICK=1: minutes.

1. `benchmarks.ett_protocol`: ETTh1 and ETTm1, 96 steps in, five horizons, MSE and MAE over all test windows.
2. The pipeline's default recipe on the oil's temperature (OT, chosen before looking: the field's own target), hourly
   means of ETTm1; the teacher sees the 15-minute readings, the six loads and the noised future. The last three times
   60 days of the file are the test parts.

Gains are over the twin, mean of the seeds' losses, with the paired block bootstrap of `tutelage.comparison` in blocks
of a week; p is one-sided and Holm-corrected over the cells of each table. The bootstrap holds the networks fixed.
Finished pieces are kept under TUTELAGE_HOME and not computed again.
"""

import datetime as dt
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from benchmarks import ett_protocol as protocol
from tutelage.baselines import seasonal_naive
from tutelage.comparison import Gain, gain_over
from tutelage.dataset import DatasetSpec, load_dataset_spec, source_files
from tutelage.distillation import Task, soft_labels, train_students, train_teacher
from tutelage.files import file_digest, source_digest, value_digest, write_json, written_whole
from tutelage.heads import QUANTILE_LEVELS, fit_bins, quantiles_of
from tutelage.metrics import Forecasts, crps
from tutelage.networks import fit_scalers
from tutelage.quality import clean
from tutelage.readings import read_readings
from tutelage.recipe import Recipe, StudentPlan, Views
from tutelage.resample import hourly_table, minutes_of_hours
from tutelage.windows import Panel, make_panel, split, window_origins

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "ett.json"
QUICK = os.environ.get("QUICK") == "1"
TIMEKD = {
    24: (0.202, 0.258),
    36: (0.259, 0.302),
    48: (0.272, 0.323),
    96: (0.305, 0.342),
    192: (0.355, 0.367),
}
"""TimeKD's published MSE and MAE on ETTm1, arXiv:2505.02138. Those on ETTh1 were not at hand."""
LOOKBACK_HOURS = {1: 24, 24: 168}
HISTORIES = (50,) if QUICK else (50, 100, 200)
ORIGINS = 1 if QUICK else 3
SEEDS = 2 if QUICK else 5
TEST_DAYS = 60
VIEWS = {
    "privileged": Views(),
    "no_privilege": Views(future_sigma=None, minutes_hours=0, auxiliary=False),
    "placebo": Views(placebo=True),
}

Losses = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cell:
    """Hours ahead, days of history, which of the last test parts (0 the last)."""

    horizon: int
    history: int
    origin: int

    @property
    def name(self) -> str:
        """The cell's name: 24h-100d."""
        return f"{self.horizon}h-{self.history}d"


Piece = str | Cell
"""ETTh1 or ETTm1 under the published protocol, or one cell at one origin."""


def pieces() -> list[Piece]:
    """All that is measured, the protocol first."""
    cells = [Cell(h, days, o) for days in HISTORIES for h in LOOKBACK_HOURS for o in range(ORIGINS)]
    return ["ETTh1", *cells] if QUICK else [*protocol.STEPS_A_DAY, *cells]


@cache
def load_transformer() -> tuple[Panel, DatasetSpec, dt.datetime, dt.datetime]:
    """The transformer's hourly panel, its spec, its first hour and the end of its last, frozen days masked."""
    spec = load_dataset_spec(ROOT / "deployments" / "datasets" / "ett.yaml")
    grid = clean(read_readings(source_files(spec.source), spec), spec)
    hours = hourly_table(grid, spec)
    first, last = hours["time_utc"][0], hours["time_utc"][-1]
    return make_panel(hours, minutes_of_hours(grid, hours, spec), spec), spec, first, last + dt.timedelta(hours=1)


def make_task(panel: Panel, cell: Cell, first: dt.datetime, end: dt.datetime, recipe: Recipe) -> tuple[Task, Tensor]:
    """The learning task of a cell and the origins of its test windows."""
    lookback = LOOKBACK_HOURS[cell.horizon]
    parts = split(
        end - dt.timedelta(days=cell.origin * TEST_DAYS),
        start=first,
        history_days=cell.history,
        validation_share=0.2,
        test_days=TEST_DAYS,
    )
    train, validation, test = (
        window_origins(panel, span, lookback=lookback, horizon=cell.horizon)
        for span in (parts.train, parts.validation, parts.test)
    )
    inside = (panel.hour >= parts.train.hours.start) & (panel.hour < parts.train.hours.stop)
    bins = fit_bins(panel.observed[inside, 0].numpy(), recipe.bins)
    scalers = fit_scalers(panel, parts.train)
    return Task(panel, lookback, cell.horizon, train, validation, scalers, bins), test


def _crps(probabilities: Tensor, task: Task, actual: np.ndarray) -> np.ndarray:
    edges = task.edges()
    quantiles = quantiles_of(probabilities, edges, edges.new_tensor(QUANTILE_LEVELS)).double().numpy()
    return crps(Forecasts(quantiles.mean(axis=-1), quantiles), actual).mean(axis=1)


def measure_cell(cell: Cell) -> Losses:
    """CRPS by test window of each kind of student (mean over seeds), of the teacher and of seasonal naive."""
    panel, _, first, end = load_transformer()
    recipe = Recipe(teachers=2) if QUICK else Recipe()
    task, test = make_task(panel, cell, first, end, recipe)
    actual = task.truth(test).numpy().astype(np.float64)
    losses, soft = {"hour": panel.hour[test].numpy()}, []
    for name, views in VIEWS.items():
        taught = recipe.model_copy(update={"views": views})
        teacher, _ = train_teacher(task, taught, seed=cell.origin)
        soft.append(soft_labels(teacher, task, task.train, taught, seed=cell.origin))
        if name == "privileged":
            losses["teacher"] = _crps(soft_labels(teacher, task, test, taught, seed=cell.origin).exp(), task, actual)
    plan = StudentPlan(alpha=recipe.alpha, temperature=recipe.temperature, dropout=recipe.student_budget.dropout)
    plans = [plan.model_copy(update={"seed": seed}).twin for seed in range(SEEDS)]
    plans += [plan.model_copy(update={"seed": s, "soft": place}) for place in range(len(VIEWS)) for s in range(SEEDS)]
    students, _ = train_students(task, torch.stack(soft), plans, recipe, seed=cell.origin)
    with torch.no_grad():
        outputs = torch.cat([students(*task.student_inputs(some)).softmax(-1) for some in test.split(1024)], dim=1)
    by_kind = np.array([_crps(member, task, actual) for member in outputs]).reshape(len(protocol.KINDS), SEEDS, -1)
    for kind, of_seeds in zip(protocol.KINDS, by_kind, strict=True):
        losses[kind] = of_seeds.mean(axis=0)
        losses[f"{kind}_by_seed"] = of_seeds.mean(axis=1)
    naive = seasonal_naive(panel, task.train, test, horizon=cell.horizon, season=24)
    losses["seasonal_naive_24h"] = crps(naive, actual).mean(axis=1)
    losses["n_train"] = np.array(len(task.train))
    return losses


def measure(piece: Piece) -> Losses:
    """All of one piece's errors, by test window."""
    if isinstance(piece, Cell):
        return measure_cell(piece)
    series = protocol.make_series(protocol.read_values(piece), protocol.STEPS_A_DAY[piece])
    return protocol.measure(series, protocol.QUICK if QUICK else protocol.Settings())


def path_of(piece: Piece) -> Path:
    """Where a piece's figures are kept: under what they were computed by, so that old ones are never taken."""
    if isinstance(piece, Cell):
        code = [source_digest(ROOT / "tutelage"), file_digest(Path(__file__))]
        name = f"{piece.name}-{piece.origin}"
    else:
        code = [file_digest(ROOT / "tutelage" / "layers.py"), file_digest(Path(protocol.__file__))]
        name = piece
    home = Path(os.environ.get("TUTELAGE_HOME", "var"))
    return home / "benchmarks" / f"ett-{value_digest([*code, QUICK])[:12]}" / f"{name}.npz"


def run(wanted: list[Piece], *, measure: Callable[[Piece], Losses] = measure) -> dict[Piece, Losses]:
    """The pieces' figures, measured where they are not kept yet."""
    found = {}
    for piece in wanted:
        path = path_of(piece)
        if not path.exists():
            begun = time.perf_counter()
            with written_whole(path) as part, part.open("wb") as file:
                np.savez_compressed(file, **measure(piece))  # type: ignore[arg-type]
            print(f"  {path.stem}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        with np.load(path) as file:
            found[piece] = dict(file)
    return found


def _holm(p: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(p, multipletests(list(p.values()), method="holm")[1].tolist(), strict=True)) if p else {}


def _gains(of: Callable[[str], np.ndarray], hour: np.ndarray) -> dict[str, dict[str, float]]:
    def over(kind: str, reference: str) -> Gain:
        return gain_over(of(kind), of(reference), hour, seed=0)

    gains = {kind: over(kind, "twin").as_dict() for kind in VIEWS}
    return {**gains, "of_privilege": over("privileged", "no_privilege").as_dict()}


def _by_seed(student: np.ndarray, twin: np.ndarray) -> list[float]:
    return [float(gain) for gain in 1 - student / twin]


def summarise_horizon(name: str, found: Losses, horizon: int) -> dict[str, object]:
    """One row of the protocol's table: MSE, MAE and the gain in MSE and MAE over the twin."""
    steps_an_hour = protocol.STEPS_A_DAY[name] // 24
    hour = found[f"origin_{horizon}"] // steps_an_hour
    row: dict[str, object] = {
        metric: {kind: float(found[f"{kind}_{metric}_{horizon}"].mean()) for kind in (*protocol.KINDS, "teacher")}
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
        "crps": {kind: float(joined(kind).mean()) for kind in (*protocol.KINDS, "teacher", "seasonal_naive_24h")},
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
    parameters = 0
    for piece, losses in found.items():
        if isinstance(piece, Cell):
            by_cell.setdefault(piece.name, []).append(losses)
            continue
        parameters = int(losses["parameters"])
        published |= {f"{piece}-{h}": summarise_horizon(piece, losses, h) for h in protocol.HORIZONS}
    cells = {name: summarise_cell(origins) for name, origins in by_cell.items()}
    for rows in (published, cells):
        p = {name: row["gain"]["privileged"]["p"] for name, row in rows.items()}  # type: ignore[index]
        better, worse = _holm(p), _holm({name: 1 - value for name, value in p.items()})
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
        lines += [
            f"Published protocol, MSE/MAE of a student of {found['student_parameters']:,} parameters, gain in MSE.",
            "TimeKD chose its checkpoint by test error, ours is chosen on validation.",
            f"{'':<12}{'twin':>13}{'student':>13}{'teacher':>13}{'TimeKD':>13}{gain}",
        ]
    for name, row in found["protocol"].items():  # type: ignore[attr-defined]
        figures = [f"{row['mse'][kind]:.3f}/{row['mae'][kind]:.3f}" for kind in ("twin", "privileged", "teacher")]
        figures.append(f"{row['timekd']['mse']:.3f}/{row['timekd']['mae']:.3f}" if "timekd" in row else "–")
        lines.append(f"{name:<12}" + "".join(f"{text:>13}" for text in figures) + _gain_text(row))
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
        "protocol": vars(protocol.QUICK if QUICK else protocol.Settings()),
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
    torch.set_num_threads(1)
    done: dict[Piece, Losses] = {}
    found: dict[str, object] = {}
    for piece in pieces():
        done |= run([piece])
        found = summarise(done)
        write(found)
    print(table(found))


if __name__ == "__main__":
    main()
