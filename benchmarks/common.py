"""What the benchmarks on real data share: a cell's dataset, and who is measured on it.

The recipe is the pipeline's default. Its teachers teach students of several seeds; as controls, as many networks
without privilege do, and the recipe's teachers with shuffled privileged values (placebo). Students of one seed and
their twin share first weights, batches and dropout; from seed to seed all three differ, and only the teachers and their
gates stay the same. Nothing is chosen but the epoch, on validation.
"""

import datetime as dt
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

from runtime.paths import home
from runtime.provenance import OURS, ROOT, code_digest, git_commit
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.windows import Panel, split
from tutelage.distil.base import fit_simple
from tutelage.distil.blocks import BLOCKS, BlockLabels, FittedStudents, fit_students, fit_teachers
from tutelage.distil.dataset import WindowDataset, fit_on, make_dataset
from tutelage.distil.recipe import Recipe, TeacherRecipe, teacher_part
from tutelage.distil.teachers import ForecastFunction
from tutelage.errors import TutelageError
from tutelage.files import file_digest, read_json, value_digest, write_json, written_whole
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES
from tutelage.judge.comparison import Gain, gain_over
from tutelage.judge.verdict import score_baselines, score_contenders

QUICK = os.environ.get("QUICK") == "1"
LOOKBACK_HOURS = {1: 24, 24: 168}
"""Of the students, by horizon."""
ORIGINS = 1 if QUICK else 3
SEEDS = 2 if QUICK else 5
MOST_WINDOWS = 10_000
THINNED_HOURS = 5
"""Of more training windows, and of test windows where a benchmark says so, those of every fifth hour are taken: 5 and
24 share no divisor, so all hours of the day."""
RECIPE = Recipe(teacher=TeacherRecipe(ensemble_size=2)) if QUICK else Recipe()
RECIPES = {
    Contender.STUDENT: RECIPE,
    Contender.UNPRIVILEGED: RECIPE.unprivileged,
    Contender.PLACEBO: RECIPE.placebo,
}
"""Whose teachers teach which students: the recipe, and its controls."""
STUDENTS = (Contender.TWIN, *RECIPES)

Losses = dict[str, np.ndarray]
"""Losses of one piece, by name: of each contender by test window, of the students also by seed. Of a piece that comes
from its file also the commit that it was measured at (`COMMIT`)."""
COMMIT = "commit"
Piece = TypeVar("Piece")
Key = TypeVar("Key")
Row = dict[str, Any]
"""The figures of one cell, as the JSON has them."""


@dataclass(frozen=True)
class Cell:
    """One cell at one origin: hours ahead, days of history (None: all), which of the last test parts (0 the last)."""

    horizon: int
    history: int | None
    origin: int

    @property
    def name(self) -> str:
        """The cell's name: 24h-100d."""
        return f"{self.horizon}h-{'all' if self.history is None else f'{self.history}d'}"


def make_cell_dataset(
    panel: Panel, cell: Cell, first: dt.datetime, end: dt.datetime, *, test_days: int
) -> WindowDataset:
    """A cell's windows of a panel from `first` to `end`, fewer of them for training where there are very many."""
    parts = split(
        end - dt.timedelta(days=cell.origin * test_days),
        start=first,
        history_days=cell.history,
        validation_share=0.2,
        test_days=test_days,
    )
    fitted = fit_on(panel, parts.train, bins=RECIPE.distillation.bins)
    dataset = make_dataset(panel, parts, fitted, lookback=LOOKBACK_HOURS[cell.horizon], horizon=cell.horizon)
    train = dataset.train
    if len(train) > MOST_WINDOWS:
        dataset = replace(dataset, train=train[panel.step[train] % THINNED_HOURS == 0])
    return dataset


def scored_of(dataset: WindowDataset) -> WindowDataset:
    """The same windows, of the test part those of every fifth issue hour."""
    return replace(dataset, test=dataset.test[dataset.panel.step[dataset.test] % THINNED_HOURS == 0])


def measure_contenders(dataset: WindowDataset, *, seed: int) -> Losses:
    """CRPS by test window of each kind of student (mean over seeds), of the teacher and of seasonal naive.

    seed: of the teachers and the gates, which all students have in common
    """
    labels = {name: fit_teachers(dataset, recipe, seed=seed).labels for name, recipe in RECIPES.items()}
    fitted = fit_students(dataset, labels, RECIPE, seed=seed, replicates=SEEDS)
    gates = fitted.trained.gates
    assert gates is not None
    scored = score_contenders(
        dataset, fitted.trained.networks, labels[Contender.STUDENT].whole.test, bases=fitted.bases
    )
    scored |= score_baselines(dataset)
    losses = {"hour": dataset.panel.step[dataset.test].numpy(), "n_train": np.array(len(dataset.train))}
    losses |= {f"{name}_gate": gate.squeeze(0).numpy() for name, gate in zip(labels, gates, strict=True)}
    losses |= {f"{name}_by_seed": scored[name].losses.mean(axis=1) for name in STUDENTS}
    return losses | {name.value: forecasts.losses.mean(axis=0) for name, forecasts in scored.items()}


def fit_variants(
    dataset: WindowDataset,
    variants: Mapping[str, Recipe],
    *,
    seed: int,
    pretrained: ForecastFunction | None = None,
) -> Iterator[tuple[str, FittedStudents]]:
    """The students of each recipe, with their twins; equal teachers are trained once, and so are simple forecasts."""
    simple = fit_simple(dataset.whole(), dataset.blocks(BLOCKS))
    labels: dict[Recipe, BlockLabels] = {}
    for name, recipe in variants.items():
        known, taught_by = dataset if recipe.teacher.other_sites else dataset.alone(), teacher_part(recipe)
        if taught_by not in labels:
            labels[taught_by] = fit_teachers(known, recipe, seed=seed, pretrained=pretrained).labels
        taught = {Contender.STUDENT: labels[taught_by]}
        yield name, fit_students(dataset, taught, recipe, seed=seed, simple=simple)


def pieces_folder(
    benchmark: str, module: str, *specs: Path, packages: Sequence[str] = (), recipe: Recipe = RECIPE
) -> Path:
    """Where a benchmark's finished pieces are: under what they are computed by, so that old ones are never taken.

    module: whose code measures them
    specs: of the datasets; where a spec reads a package's file, the package's version counts as well
    packages: further ones that no module imports by name: their files are read
    """
    sources = (load_dataset_spec(spec).source.package for spec in specs)
    by = {
        "code": code_digest(module),
        "specs": {spec.name: file_digest(spec) for spec in specs},
        "packages": {name: _version_of(name) for name in (*packages, *sources) if name},
        "recipe": recipe.model_dump(mode="json"),
        "quick": QUICK,
    }
    return home() / "benchmarks" / f"{benchmark}-{value_digest(by)[:12]}"


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # whoever reads its files says so


@cache
def measuring_commit() -> str:
    """The commit of the code that this process measures with, `-dirty` where a file of the packages is changed.

    It is read once, since a running process doesn't import what is changed later. Results don't count: they are written
    while pieces are measured.
    """
    commit = git_commit()
    if commit == "unknown" or os.environ.get("TUTELAGE_COMMIT"):  # a container's code is that of its image
        return commit
    command = ["git", "--no-optional-locks", "status", "--porcelain", "--", *OURS, ":(exclude)benchmarks/results"]
    changed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return f"{commit}-dirty" if changed else commit


def commits_of(pieces: Iterable[Losses]) -> str:
    """The commits that pieces were measured at, joined by commas where they differ.

    `unknown` is that of a piece without a stored commit.
    """
    return ", ".join(sorted({str(piece.get(COMMIT, "unknown")) for piece in pieces}))


def load_or_measure(path: Path, measure: Callable[[], Losses]) -> Losses:
    """A piece's losses and commit from its file; where there is none, they are measured and the file is written.

    One thread: it is the pieces that run side by side.
    """
    if not path.exists():
        torch.set_num_threads(1)
        begun, commit = time.perf_counter(), {COMMIT: np.array(measuring_commit())}
        with written_whole(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **measure() | commit)  # type: ignore[arg-type]
        print(f"  {path.stem}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    with np.load(path) as file:
        return dict(file)


def measure_pieces(paths: Mapping[Piece, Path], measure: Callable[[Piece], Losses]) -> Iterator[tuple[Piece, Losses]]:
    """The losses of all pieces, each as soon as it is there; measured side by side, in the order of `paths`.

    A piece that can't be measured is named and left out.
    """
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        pending = {pool.submit(load_or_measure, path, partial(measure, piece)): piece for piece, path in paths.items()}
        for finished in as_completed(pending):
            piece = pending[finished]
            try:
                yield piece, finished.result()
            except TutelageError as error:
                print(f"left out: {paths[piece].stem}: {error}", flush=True)


def measure_into(
    results: Path,
    paths: Mapping[Piece, Path],
    measure: Callable[[Piece], Losses],
    summarise: Callable[[Mapping[Piece, Losses], Row | None], Row],
    settings: Row | None = None,
) -> Row:
    """Measure what is missing; write the figures with their settings after each piece, and return them.

    summarise: the figures of what is measured, and of the figures in the file before, where there are any
    settings: further ones
    """
    earlier = read_json(results) if results.exists() else None
    every_setting = {"pieces": len(paths), "quick": QUICK, "torch": torch.__version__} | (settings or {})
    done: dict[Piece, Losses] = {}
    for piece, losses in measure_pieces(paths, measure):
        done[piece] = losses
        write_json(results, summarise(done, earlier) | {"settings": every_setting})
    return summarise(done, earlier)


def with_earlier(measured: Mapping[Key, Row], earlier: Mapping[Key, Row]) -> dict[Key, Row]:
    """The measured rows, and the earlier ones that have more pieces.

    A measurement that is begun again, elsewhere or by changed code, so doesn't take away what is known.
    """
    fresh = {key: row for key, row in measured.items() if key not in earlier or row["pieces"] >= earlier[key]["pieces"]}
    return {**earlier, **fresh}


def joined(pieces: Sequence[Losses], name: str) -> np.ndarray:
    """The losses of this name over all pieces of a cell."""
    return np.concatenate([piece[name] for piece in pieces])


def gain_of(pieces: Sequence[Losses], name: str, reference: str) -> Gain:
    """The gain of one over another over all pieces of a cell, with its interval."""
    return gain_over(joined(pieces, name), joined(pieces, reference), joined(pieces, "hour"))


def gain_by_origin(pieces: Sequence[Losses], name: str = Contender.STUDENT) -> list[float]:
    """The students' gain over their twins, or another's, piece by piece."""
    return [float(1 - piece[name].mean() / piece[Contender.TWIN].mean()) for piece in pieces]


def over_origins(gains: Sequence[float]) -> Row | None:
    """The mean of the origins' gains with its 95 % t interval; None of a single one.

    Each origin has its own test part and its own teachers. Histories of neighbouring origins overlap, so the interval
    is too narrow rather than too wide, and it rests on few numbers.
    """
    if len(gains) < 2:
        return None
    mean, half = float(np.mean(gains)), float(stats.sem(gains) * stats.t.ppf(0.975, len(gains) - 1))
    return {"estimate": mean, "low": mean - half, "high": mean + half, "origins": len(gains)}


def gain_by_seed(pieces: Sequence[Losses]) -> list[float]:
    """The students' gain over the twins of the same seed, over all pieces."""
    student, twin = (
        np.sum([piece[f"{name}_by_seed"] for piece in pieces], axis=0) for name in (Contender.STUDENT, Contender.TWIN)
    )
    return (1 - student / twin).tolist()


def summarise_cell(pieces: Sequence[Losses]) -> Row:
    """The figures of one cell of `measure_contenders` over its origins."""
    crps = {name: float(joined(pieces, name).mean()) for name in (*STUDENTS, Contender.TEACHER, *BASELINES)}
    floor, by_origin = min(BASELINES, key=crps.__getitem__), gain_by_origin(pieces)
    return {
        "pieces": len(pieces),
        COMMIT: commits_of(pieces),
        "n_train_windows": [int(piece["n_train"]) for piece in pieces],
        "crps": crps,
        "floor": {"name": floor, **asdict(gain_of(pieces, Contender.STUDENT, floor))},
        "gain": {name: asdict(gain_of(pieces, name, Contender.TWIN)) for name in RECIPES},
        "gain_of_privilege": asdict(gain_of(pieces, Contender.STUDENT, Contender.UNPRIVILEGED)),
        "gain_by_origin": by_origin,
        "gain_over_origins": over_origins(by_origin),
        "gain_by_seed": gain_by_seed(pieces),
    }


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979) of some p-values."""
    return dict(zip(p, multipletests(list(p.values()), method="holm")[1].tolist(), strict=True)) if p else {}


def add_holm(rows: Mapping[str, Row]) -> None:
    """Add the Holm-corrected p over all cells to each: of the students' gain (p_holm) and of harm (p_worse_holm)."""
    p = {name: row["gain"][Contender.STUDENT]["p"] for name, row in rows.items()}
    better, worse = holm(p), holm({name: 1 - value for name, value in p.items()})
    for name, row in rows.items():
        row |= {"p_holm": better[name], "p_worse_holm": worse[name]}


def cells_table(rows: Mapping[str, Row]) -> str:
    """Cells of `measure_contenders` as text: CRPS in the target's unit, gains over the twin in per cent."""
    lines = [
        f"{'cell':<10}{'floor':>8}{'twin':>8}{'student':>9}{'teacher':>9}{'gain':>8}{'95 % interval':>18}{'p Holm':>9}"
        f"{'unpriv.':>10}{'placebo':>9}  by origin"
    ]
    for name, cell in rows.items():
        c, g = cell["crps"], cell["gain"]
        gain, floor = g[Contender.STUDENT], c[cell["floor"]["name"]]
        lines.append(
            f"{name:<10}{floor:>8.4f}{c[Contender.TWIN]:>8.4f}{c[Contender.STUDENT]:>9.4f}{c[Contender.TEACHER]:>9.4f}"
            f"{gain['estimate']:>+8.1%}{gain['low']:>+9.1%} … {gain['high']:>+6.1%}{cell['p_holm']:>9.3f}"
            f"{g[Contender.UNPRIVILEGED]['estimate']:>+10.1%}{g[Contender.PLACEBO]['estimate']:>+9.1%}  "
            + " ".join(f"{x:+.1%}" for x in cell["gain_by_origin"])
        )
    return "\n".join(lines)
