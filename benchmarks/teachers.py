"""What does each kind of teacher bring? `python -m benchmarks.teachers`.

Part of `make bench-efficacy`. The household a day and an hour ahead with 100 days of history, on the last six times 60
days of the file, those of `benchmarks.household_cells`. For each teacher in `VARIANTS` a student that is averaged with
its base, as it would be registered: its CRPS against the twin's, and against that of the default recipe's student.
Those that add something to the default differ from it in that alone; the others are one kind of view alone.
`unprivileged` is the control of all, `auxiliary_future_placebo` that of the privileged columns over the horizon. The
pretrained model may have seen the household.

Gains have the interval of `tutelage.judge.comparison` over the test windows of all origins; p is one-sided and
Holm-corrected over the cells' variants. Nothing is chosen here. Finished pieces stay under TUTELAGE_HOME; a cell's
figures stay until as many pieces of it are measured anew. QUICK=1 takes one origin.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.common import (
    COMMIT,
    QUICK,
    RECIPE,
    Cell,
    Losses,
    Row,
    commits_of,
    fit_variants,
    gain_by_origin,
    gain_of,
    holm,
    joined,
    measure_into,
    pieces_folder,
    with_earlier,
)
from benchmarks.household_cells import SHORT_DAYS, SHORT_ORIGINS, SPEC, dataset_of
from tutelage.distil.base import forecast_with_base
from tutelage.distil.pretrained import load_pretrained
from tutelage.distil.privilege import UNPRIVILEGED, Views
from tutelage.distil.recipe import Recipe
from tutelage.forecasts import Contender, crps
from tutelage.judge.verdict import actual_values

RESULTS = Path(__file__).parent / "results" / "teachers.json"
HORIZONS = (24, 1)
RELATIVE = UNPRIVILEGED.model_copy(update={"relative_hours": 1})
AUXILIARY_FUTURE = UNPRIVILEGED.model_copy(update={"auxiliary_future_sigma": 1.0})


def _alone(views: Views) -> Recipe:
    return RECIPE.override({"teacher.views": views, "teacher.more_views": ()})


TOGETHER = {"teacher.simple": True, "teacher.weights": "likely", "teacher.coupling": 1.0}
VARIANTS: dict[str, Recipe] = {
    "default": RECIPE,
    "unprivileged": RECIPE.unprivileged,
    "relative": _alone(RELATIVE),
    "auxiliary_future": _alone(AUXILIARY_FUTURE),
    "auxiliary_future_placebo": _alone(AUXILIARY_FUTURE).placebo,
    "simple": RECIPE.override({"teacher.simple": True}),
    "likely": RECIPE.override({"teacher.weights": "likely"}),
    "coupled": RECIPE.override({"teacher.coupling": 1.0}),
    "soft_stop": RECIPE.override({"distillation.stop": "teacher"}),
    "pretrained": RECIPE.override({"teacher.pretrained": "fracast"}),
    "together": RECIPE.override(
        TOGETHER | {"teacher.more_views": (*RECIPE.teacher.more_views, RELATIVE, AUXILIARY_FUTURE)},
    ),
}


def variants_of(horizon: int) -> dict[str, Recipe]:
    """The variants that there are at a horizon, in hours: an hour ahead has no relative future."""
    if horizon > 1:
        return VARIANTS
    together = RECIPE.override(TOGETHER | {"teacher.more_views": (*RECIPE.teacher.more_views, AUXILIARY_FUTURE)})
    return {name: recipe for name, recipe in VARIANTS.items() if name != "relative"} | {"together": together}


def every_piece() -> list[Cell]:
    """Both horizons at all origins, the last origin first."""
    return [Cell(horizon, SHORT_DAYS, origin) for origin in range(SHORT_ORIGINS) for horizon in HORIZONS]


def measure(cell: Cell) -> Losses:
    """CRPS by test window of the twin and of each variant's student, and the network's weight of each."""
    dataset = dataset_of(cell)
    actual = actual_values(dataset, dataset.test)
    losses: Losses = {"hour": dataset.panel.step[dataset.test].numpy()}
    variants = variants_of(cell.horizon)
    for variant, fitted in fit_variants(dataset, variants, seed=cell.origin, pretrained=load_pretrained("fracast")):
        for name, of_variant in ((Contender.TWIN, "twin"), (Contender.STUDENT, variant)):
            network, base = fitted.trained.networks[name], fitted.bases[name]
            if of_variant not in losses:  # all variants have the same twin
                [forecast] = forecast_with_base(network, dataset, dataset.test, base)
                losses[of_variant] = crps(forecast, actual).mean(axis=1)
                losses[f"share:{of_variant}"] = np.array(base.network_share)
    return losses


def summarise(done: Mapping[Cell, Losses], earlier: Row | None = None) -> Row:
    """By cell and variant: CRPS, the network's mean weight, and the gains over the twin and over the default.

    earlier: figures as these, whose cells stay where fewer pieces, or none, were measured
    """
    by_cell: dict[str, list[Losses]] = {}
    for cell, losses in done.items():
        by_cell.setdefault(cell.name, []).append(losses)
    cells = {}
    for name, pieces in by_cell.items():
        variants = [each for each in VARIANTS if each in pieces[0]]
        over_twin = {each: gain_of(pieces, each, Contender.TWIN) for each in variants}
        corrected = holm({each: gain.p for each, gain in over_twin.items()})
        cells[name] = {
            "pieces": len(pieces),
            COMMIT: commits_of(pieces),
            "twin": float(joined(pieces, Contender.TWIN).mean()),
            "variants": {
                each: {
                    "crps": float(joined(pieces, each).mean()),
                    "network_share": float(np.mean([piece[f"share:{each}"] for piece in pieces])),
                    "gain_over_twin": asdict(gain),
                    "p_holm": corrected[each],
                    "gain_over_default": asdict(gain_of(pieces, each, "default")),
                    "gain_by_origin": gain_by_origin(pieces, each),
                }
                for each, gain in over_twin.items()
            },
        }
    return {"cells": with_earlier(cells, earlier["cells"] if earlier else {})}


def table(figures: Row) -> str:
    """The cells as text: CRPS in kW, gains in per cent."""
    lines = []
    for name, cell in figures["cells"].items():
        lines.append(f"{name}, {cell['pieces']} origins, twin {cell['twin']:.4f}")
        for variant, row in cell["variants"].items():
            gains = (
                f"{gain['estimate']:>+8.1%} ({gain['low']:+.1%} … {gain['high']:+.1%})"
                for gain in (row["gain_over_twin"], row["gain_over_default"])
            )
            lines.append(f"  {variant:<26}{row['crps']:.4f}{'  '.join(gains)}  p {row['p_holm']:.3f}")
    return "\n".join(lines)


def folder_of_pieces() -> Path:
    """Where the pieces' files are."""
    return pieces_folder("teachers", "benchmarks.teachers", SPEC, packages=("fracast",))


def main() -> None:
    """Measure what is missing; print the table and write the JSON after each piece."""
    folder = folder_of_pieces()
    results = folder / "teachers.json" if QUICK else RESULTS
    pieces = {piece: folder / f"{piece.name}-{piece.origin}.npz" for piece in every_piece()}
    print(table(measure_into(results, pieces, measure, summarise)))


if __name__ == "__main__":
    main()
