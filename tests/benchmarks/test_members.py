from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks import common, members
from benchmarks.accuracy import Piece
from benchmarks.common import Cell, Losses
from benchmarks.members import RESULTS, every_piece, summarise, without_pretrained
from tests.tutelage.builders import dataset_of, synthetic_panel
from tutelage.distil.base import FittedSimple, fit_base, forecast_simple
from tutelage.files import read_json, write_json
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


def test_summarise__a_cell_takes_the_place_of_an_earlier_one_with_no_more_pieces() -> None:
    homes = {Piece("homes", Cell(24, 28, 0), number): 0.1 * number for number in range(3)}
    earlier = summarise({piece: losses_of(1.0, 0.7 + more, 1.2) for piece, more in homes.items()})
    fewer = {Piece("homes", Cell(horizon, 28, 0), 0): losses_of(1.0, 0.5, 1.2) for horizon in (1, 24)}
    figures = summarise(fewer, earlier)
    hour, day = figures["cells"]
    assert (hour["crps"]["with_pretrained"], day, figures["all"]) == (0.5, earlier["cells"][0], earlier["all"])
    again = summarise({piece: losses_of(1.0, 0.5 + more, 1.2) for piece, more in homes.items()}, earlier)
    of_rows = [row["crps"]["with_pretrained"] for row in (*again["cells"], again["all"])]
    assert of_rows == pytest.approx([0.6, 0.6])


def test_main__a_begun_run_leaves_the_complete_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    committed, results = read_json(RESULTS), tmp_path / "members.json"
    write_json(results, committed)

    def measure_one(paths: Mapping[Piece, Path], measure: Callable[[Piece], Losses]) -> Iterator[tuple[Piece, Losses]]:
        yield next(iter(paths)), losses_of(1.0, 0.9, 1.2)

    monkeypatch.setattr(common, "measure_pieces", measure_one)
    monkeypatch.setattr(members, "RESULTS", results)
    members.main()
    written = read_json(results)
    assert {name: written[name] for name in ("cells", "all")} == {name: committed[name] for name in ("cells", "all")}
    assert "24 h  28 d  17 pieces" in capsys.readouterr().out


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
