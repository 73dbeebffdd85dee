"""Do teachers that know more help a new site? Part of `make bench-efficacy`, or `python -m benchmarks.homes`.

Seventeen homes with hourly meters, a day ahead. Each in turn is the new one, with 14, 28, 56 or 100 days of history and
the 30 days after them as test part, at three starts; the sixteen others are known until the history ends. Students of
three kinds of teachers (`VARIANTS`): teachers that have learned from the other sites, a pretrained model next to them,
and that model with teachers of this site alone. Of the first two, each once more with students that stop by the soft
labels (`soft`), students also learn from the other sites' windows,
which the teachers have labelled; so does `untaught`, by the actual values. All are averaged with their bases.

Gains are CRPS on every fifth issue hour against the twin and against untaught, and of `sites` against two simple
forecasts, the mean of their logarithms over homes and starts; p is one-sided, of a t test over the homes' means: homes,
not windows, are what a claim is about. Of a home with several short histories each counts once. Finished pieces stay
under TUTELAGE_HOME; a history's figures stay until as many pieces of it are measured anew. QUICK=1 takes two homes and
one start.
"""

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from scipy import stats

from benchmarks.common import (
    COMMIT,
    QUICK,
    Cell,
    Losses,
    Row,
    commits_of,
    fit_variants,
    make_cell_dataset,
    measure_into,
    pieces_folder,
    scored_of,
    with_earlier,
)
from flows.homes import PACKAGE, read_homes
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.windows import Panel, make_panel
from tutelage.distil.base import forecast_with_base
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pretrained import load_pretrained
from tutelage.distil.recipe import Recipe, load_recipe
from tutelage.distil.sites import add_sites
from tutelage.distil.teachers import ForecastFunction
from tutelage.forecasts import Contender, Forecasts, crps
from tutelage.judge.baselines import forecast_baselines
from tutelage.judge.verdict import actual_values

RESULTS = Path(__file__).parent / "results" / "homes.json"
DEPLOYMENTS = Path(__file__).parent.parent / "deployments"
SPEC = DEPLOYMENTS / "datasets" / "homes.yaml"
RECIPE = load_recipe(DEPLOYMENTS / "recipes" / "new-site.yaml").override({"student.pretrained": None})
"""What teachers bring is measured without the pretrained model in the average; `benchmarks.members` measures that."""
VARIANTS: dict[str, Recipe] = {
    "sites": RECIPE,
    "sites_soft": RECIPE.override({"distillation.stop": "teacher"}),
    "both": RECIPE.override({"teacher.pretrained": "fracast"}),
    "both_soft": RECIPE.override({"teacher.pretrained": "fracast", "distillation.stop": "teacher"}),
    "pretrained": RECIPE.override(
        {"teacher.pretrained": "fracast", "teacher.other_sites": None, "distillation.transfer": False}
    ),
}
HORIZON, TEST_DAYS = 24, 30
HISTORIES = (28,) if QUICK else (28, 56, 14, 100)
SHORT_DAYS = 56
FLOOR = (Contender.SAME_HOUR_28D, Contender.RIDGE)


@dataclass(frozen=True)
class Piece:
    """One new home, by its number from 0, the days of history before its test part, and its start."""

    number: int
    days: int
    start: int

    @property
    def name(self) -> str:
        """The piece's name in files: home3-28d-start0."""
        return f"home{self.number + 1}-{self.days}d-start{self.start}"


@cache
def home_panels() -> list[Panel]:
    """Each home as a panel of its target."""
    spec = load_dataset_spec(SPEC)
    hours = read_homes().select(
        "load_kwh",
        series_id=pl.col("home"),
        time_utc=pl.col("time").dt.replace_time_zone(spec.timestamp.timezone).dt.convert_time_zone("UTC"),
    )
    of_homes = hours.partition_by("series_id", maintain_order=True)
    return [make_panel(each, np.zeros((each.height, 0), dtype=np.float32), spec) for each in of_homes]


def span_of(panel: Panel) -> tuple[dt.datetime, dt.datetime]:
    """The start of a panel's first hour and the end of its last."""
    first, last = (dt.datetime.fromtimestamp(3600 * int(panel.step[place]), dt.UTC) for place in (0, -1))
    return first, last + dt.timedelta(hours=1)


def joined_panels(panels: list[Panel]) -> Panel:
    """Several homes as the series of one panel."""
    names = ("observed", "known", "auxiliary", "minutes", "step")
    series = torch.cat([torch.full_like(panel.series, number) for number, panel in enumerate(panels)])
    return Panel(series=series, **{name: torch.cat([getattr(each, name) for each in panels]) for name in names})


def every_piece() -> list[Piece]:
    """All pieces: the first start of all homes with 28 days first."""
    homes, starts = (range(0, 17, 9), range(1)) if QUICK else (range(17), range(3))
    return [Piece(number, days, start) for days in HISTORIES for start in starts for number in homes]


def _others(piece: Piece) -> list[int]:
    return [number for number in range(len(home_panels())) if number != piece.number]


def dataset_of(piece: Piece) -> WindowDataset:
    """The new home's windows, those of the others as its transfer set; of the test part every fifth issue hour."""
    panel = home_panels()[piece.number]
    first, end = span_of(panel)
    # The starts are three months, or test parts, apart, so that they are of other seasons.
    cell = Cell(HORIZON, piece.days, 3 * piece.start)
    dataset = scored_of(make_cell_dataset(panel, cell, first, end, test_days=TEST_DAYS))
    others = joined_panels([home_panels()[number] for number in _others(piece)])
    return add_sites(dataset, others, until_step=dataset.first_step + 24 * piece.days)


@cache
def _standardised(until_step: int) -> dict[tuple[int, int], Float[np.ndarray, "horizon levels"]]:
    """The quantiles, by home and hour, that `pretrained_of` has forecast in this process for homes known until then."""
    return {}


def pretrained_of(piece: Piece) -> ForecastFunction:
    """The pretrained model for a piece's windows; windows of the other homes are computed once for all pieces.

    Every home is in the transfer sets of sixteen others, with all their histories, each time shifted and stretched.
    The model's forecasts of such a series are those of the standardised one, shifted and stretched.
    """
    model, numbers = load_pretrained("fracast"), [piece.number, *_others(piece)]

    def forecast(dataset: WindowDataset, origins: torch.Tensor) -> Forecasts:
        series, hour = dataset.panel.series[origins].tolist(), dataset.panel.step[origins].tolist()
        if not all(series):  # the home's own windows, whose past begins with its history
            return model(dataset, origins)
        known = _standardised(dataset.first_step + 24 * piece.days)
        mean, std = dataset.scalers.observed.mean[0], dataset.scalers.observed.std[0]
        windows = [(numbers[number], of_number) for number, of_number in zip(series, hour, strict=True)]
        fresh = [place for place, window in enumerate(windows) if window not in known]
        if fresh:
            quantiles = (model(dataset, origins[fresh]).quantiles - mean) / std
            known.update(zip((windows[place] for place in fresh), quantiles.astype(np.float32), strict=True))
        every = np.stack([known[window] for window in windows]).astype(np.float64) * std + mean
        return Forecasts(every.mean(axis=-1), every)

    return forecast


def measure(piece: Piece) -> Losses:
    """CRPS by test window of the twin, of each variant's student and untaught network, and of two simple forecasts."""
    dataset = dataset_of(piece)
    actual = actual_values(dataset, dataset.test)
    losses: Losses = {}
    for variant, fitted in fit_variants(dataset, VARIANTS, seed=piece.start, pretrained=pretrained_of(piece)):
        for name, network in fitted.trained.networks.items():
            [forecast] = forecast_with_base(network, dataset, dataset.test, fitted.bases[name])
            of_variant = name.value if name is Contender.TWIN else f"{variant}_{name}"
            losses.setdefault(of_variant, crps(forecast, actual).mean(axis=1))
    floor = forecast_baselines(dataset.alone(), dataset.test, FLOOR)
    return losses | {name.value: crps(each, actual).mean(axis=1) for name, each in floor.items()}


def mean_gain(ratios: Iterable[tuple[int, float]]) -> Row:
    """1 − the geometric mean of CRPS ratios over homes, its 95 % t interval and p over homes, and each home's gain.

    ratios: the number of the home from 1, and a ratio, several of a home where it has several; with one home there are
    no interval and no p
    """
    by_home: dict[int, list[float]] = {}
    for number, ratio in ratios:
        by_home.setdefault(number, []).append(math.log(ratio))
    means = np.array([np.mean(each) for each in by_home.values()])
    mean, several = float(means.mean()), len(means) > 1
    half = float(stats.sem(means) * stats.t.ppf(0.975, len(means) - 1)) if several else math.inf
    return {
        "gain": 1 - math.exp(mean),
        "low": 1 - math.exp(mean + half) if several else None,
        "high": 1 - math.exp(mean - half) if several else None,
        "p": float(stats.ttest_1samp(means, 0.0, alternative="less").pvalue) if several else None,
        "homes": len(means),
        "by_home": {str(number): 1 - math.exp(np.mean(each)) for number, each in sorted(by_home.items())},
    }


def gain_over_homes(done: Iterable[tuple[int, Losses]], name: str, reference: str) -> Row:
    """The mean gain of one over another; done: the number of the home, from 0, and the losses of each piece."""
    return mean_gain((number + 1, losses[name].mean() / losses[reference].mean()) for number, losses in done)


def summarise(done: Mapping[Piece, Losses], earlier: Row | None = None) -> Row:
    """The gains of each variant by history, and over the short ones.

    earlier: figures as these, whose histories stay where fewer pieces, or none, were measured
    """
    pairs = [(f"{variant}_student", Contender.TWIN.value) for variant in VARIANTS]
    pairs += [(f"{variant}_student", f"{variant}_untaught") for variant in VARIANTS if variant != "pretrained"]
    pairs += [("sites_student", name.value) for name in FLOOR]
    measured = {}
    for days in sorted({piece.days for piece in done}):
        of_days = {piece: losses for piece, losses in done.items() if piece.days == days}
        names = [name for name in next(iter(of_days.values())) if name != COMMIT]
        mean = {name: float(np.mean([losses[name].mean() for losses in of_days.values()])) for name in names}
        by_home = [(piece.number, losses) for piece, losses in of_days.items()]
        gains = {f"{name} over {reference}": gain_over_homes(by_home, name, reference) for name, reference in pairs}
        starts = len({piece.start for piece in of_days})
        measured[str(days)] = {
            "pieces": len(of_days),
            COMMIT: commits_of(of_days.values()),
            "starts": starts,
            "crps": mean,
            "gains": gains,
        }
    by_history = with_earlier(measured, earlier["by_history"] if earlier else {})
    short_rows = [row for days, row in by_history.items() if int(days) <= SHORT_DAYS]
    if not short_rows:
        return {"mean_gain_short": None, "p": None, "short": {}, "by_history": by_history}
    short = {
        f"{name} over {reference}": mean_gain(
            (int(number), 1 - gain)
            for row in short_rows
            for number, gain in row["gains"][f"{name} over {reference}"]["by_home"].items()
        )
        for name, reference in pairs
    }
    best = short["sites_student over twin"]
    return {"mean_gain_short": best["gain"], "p": best["p"], "short": short, "by_history": by_history}


def folder_of_pieces() -> Path:
    """Where the pieces' files are."""
    return pieces_folder("homes", "benchmarks.homes", SPEC, packages=(PACKAGE, "fracast"), recipe=RECIPE)


def main() -> None:
    """Measure what is missing; write the JSON after each piece, and print the gains."""
    folder = folder_of_pieces()
    results = folder / "homes.json" if QUICK else RESULTS
    pieces = {piece: folder / f"{piece.name}.npz" for piece in every_piece()}
    figures = measure_into(results, pieces, measure, summarise)
    for pair, row in figures["short"].items():
        p = math.nan if row["p"] is None else row["p"]
        print(f"{pair:<40}{row['gain']:>+8.1%}  p {p:.3f}  homes {row['homes']}")
    print(json.dumps({name: figures[name] for name in ("mean_gain_short", "p")}, indent=2))


if __name__ == "__main__":
    main()
