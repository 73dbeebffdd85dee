import numpy as np
import pytest

from benchmarks.accuracy import Piece
from benchmarks.common import Cell, Losses
from benchmarks.members import every_piece, summarise, without_pretrained
from tests.tutelage.builders import dataset_of, synthetic_panel
from tutelage.distil.base import FittedSimple, fit_base, forecast_simple
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES


def losses_of(champion: float, with_pretrained: float, pretrained: float) -> Losses:
    crps_of = {name.value: 2.0 for name in BASELINES} | {Contender.RIDGE.value: 1.6, "champion": champion}
    crps_of |= {"with_pretrained": with_pretrained, "pretrained": pretrained}
    losses = {name: np.full(4, value) for name, value in crps_of.items()}
    covered = {f"coverage:{name}": np.array(0.8) for name in ("champion", "with_pretrained")}
    return losses | covered | {"weight": np.array(0.5), "commit": np.array("a1")}


def test_summarise__gains_are_over_each_alternative() -> None:
    done = {
        Piece("homes", Cell(24, 28, 0), 0): losses_of(1.0, 0.9, 1.2),
        Piece("homes", Cell(24, 28, 0), 1): losses_of(2.0, 1.6, 1.2),
        Piece("homes", Cell(1, 28, 0), 1): losses_of(1.0, 1.1, 1.2),
    }
    figures = summarise(done)
    hour, day = figures["cells"]
    assert (hour["horizon"], hour["pieces"], day["horizon"], day["pieces"]) == (1, 1, 24, 2)
    assert (day["floor"], day["weight"]) == ("ridge", 0.5)
    assert day["coverage_80"] == {"champion": 0.8, "with_pretrained": 0.8}
    assert day["crps"]["with_pretrained"] == pytest.approx(1.25)
    gains = {name: row["gain"] for name, row in day["gains"].items()}
    assert gains["with_pretrained over champion"] == pytest.approx(1 - (0.9 * 0.8) ** 0.5)
    assert gains["with_pretrained over pretrained"] == pytest.approx(1 - (0.75 * 1.6 / 1.2) ** 0.5)
    assert hour["gains"]["with_pretrained over ridge"]["p"] is None, "one home says nothing"
    assert (figures["all"]["pieces"], figures["all"]["commit"], hour["commit"]) == (3, "a1", "a1")


def test_every_piece__a_day_ahead_of_all_homes_comes_first() -> None:
    pieces = every_piece()
    assert len(set(pieces)) == len(pieces) == 17 * 2 * 3 * 3
    assert {(piece.cell.horizon, piece.cell.origin) for piece in pieces[: 17 * 3]} == {(24, 0)}


def test_without_pretrained__leaves_every_other_forecast() -> None:
    dataset = dataset_of(synthetic_panel([900]), train_hours=600, validation_hours=150, lookback=30, horizon=3)
    base = fit_base(dataset)
    block = forecast_simple(base, dataset, dataset.validation)
    weights = {**base.weights, Contender.PRETRAINED: 0.0}
    more = block | {Contender.PRETRAINED: block[Contender.RIDGE]}
    simple = without_pretrained(FittedSimple(base.weighed(weights), (more,)))
    assert simple.base.weights == base.weights
    assert simple.base.pretrained is None
    assert simple.blocks == (block,)
