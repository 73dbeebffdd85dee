import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import (
    Piece,
    boosted_quantiles,
    dataset_of,
    every_piece,
    summarise,
    table,
    with_peers,
    write_input,
)
from benchmarks.common import THINNED_HOURS, Cell, Losses
from tests.tutelage.builders import dataset_of as small_dataset
from tests.tutelage.builders import synthetic_panel, target_alone
from tutelage.forecasts import crps
from tutelage.judge.baselines import BASELINES
from tutelage.judge.verdict import actual_values


def losses_of(champion: float, peer: float, pretrained: float) -> Losses:
    crps_of = {name.value: 2.0 for name in BASELINES} | {"twin": 1.5, "champion": champion}
    crps_of |= {"fixed_weights": 1.1 * champion, "uncorrected": 1.2 * champion}
    crps_of |= {"boosted": peer, "pretrained": pretrained}
    losses = {name: np.full(4, value) for name, value in crps_of.items()}
    covered = {f"coverage:{name}": np.array(0.8) for name in crps_of}
    return losses | covered | {"network_share": np.array(0.3), "commit": np.array("a1")}


def test_summarise__a_peer_that_may_have_seen_the_data_is_no_best_peer() -> None:
    done = {
        Piece("household", Cell(24, 100, 0)): losses_of(1.0, 1.25, 0.5),
        Piece("homes", Cell(24, 28, 0), 3): losses_of(1.0, 1.25, 0.5),
        Piece("homes", Cell(24, 28, 1), 4): losses_of(2.0, 1.25, 0.5),
    }
    figures = summarise(done)
    homes, household = figures["cells"]
    assert (household["dataset"], household["best_peer"], household["may_have_seen"]) == (
        "household",
        "boosted",
        ["pretrained"],
    )
    assert (homes["best_peer"], homes["pieces"], homes["origins"]) == ("pretrained", 2, 2)
    assert homes["crps"]["champion"] == 1.5
    summary = figures["summary"]
    assert summary["relative_to_best_peer"] == pytest.approx(math.sqrt(3.0 * 0.8))
    assert summary["relative_with_fixed_weights"] == pytest.approx(1.1 * math.sqrt(3.0 * 0.8))
    assert summary["relative_uncorrected"] == pytest.approx(1.2 * math.sqrt(3.0 * 0.8))
    assert summary["worst_cell_vs_floor"] == 0.75
    assert (summary["cells_won"], summary["cells"], summary["coverage_in_77_83"]) == (1, 2, 1.0)
    lines = table(figures).splitlines()
    assert len(lines) == 3
    assert "(0.5000)" in lines[2]
    assert "(0.5000)" not in lines[1]


def test_summarise__a_cell_takes_the_place_of_an_earlier_one_with_no_more_pieces() -> None:
    both = {Piece("homes", Cell(24, 28, 0), home): losses_of(1.0, 1.25, 0.5) for home in (3, 4)}
    other = {Piece("household", Cell(24, 100, 0)): losses_of(2.0, 1.25, 0.5)}
    earlier = summarise(both | other)["cells"]
    again = {Piece("homes", Cell(24, 28, 0), 3): losses_of(3.0, 1.25, 0.5)}
    assert [cell["crps"]["champion"] for cell in summarise(again, earlier)["cells"]] == [1.0, 2.0]
    again |= {Piece("homes", Cell(24, 28, 1), 3): losses_of(3.0, 1.25, 0.5)}
    figures = summarise(again, earlier)
    assert [cell["crps"]["champion"] for cell in figures["cells"]] == [3.0, 2.0]
    assert figures["summary"]["cells"] == 2
    del earlier[1]["crps"]["fixed_weights"]  # of a benchmark before these were kept
    assert summarise(again, earlier)["summary"]["relative_with_fixed_weights"] is None
    assert [cell["commit"] for cell in figures["cells"]] == ["a1", "a1"]


def test_every_piece__the_first_origins_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTELAGE_ETT", raising=False)
    pieces = list(every_piece())
    assert len({piece.name for piece in pieces}) == len(pieces)
    first = pieces[: 4 * 3 + 2 + 6 * 3 * 3]
    assert {piece.series for piece in first if piece.source == "homes"} == {0, 6, 12}
    origins = [piece.cell.origin for piece in first]
    assert origins == sorted(origins)
    assert [piece.cell.history for piece in first].count(400) == 2
    assert {piece.source for piece in pieces} == {"household", "homes"}
    assert len({piece.series for piece in pieces if piece.source == "homes"}) == 17


def test_dataset_of__tests_on_every_hour_after_the_history() -> None:
    dataset = dataset_of(Piece("homes", Cell(24, 28, 1), 2))
    hour = dataset.panel.step
    assert int(hour[dataset.train[0]]) == dataset.first_step + 168
    assert int(hour[dataset.test[0]]) == dataset.first_step + 28 * 24
    assert len(dataset.test) == 30 * 24 - 23
    scored = hour[dataset.test] % THINNED_HOURS == 0
    assert len((hour[dataset.test][scored] % 24).unique()) == 24


def test_boosted_quantiles__follow_what_repeats() -> None:
    panel = target_alone(synthetic_panel([900]))
    panel.observed[:] = 10 + 3 * torch.sin(panel.known[:, :1] * (2 * torch.pi / 24)) + 0.1 * panel.observed
    dataset = small_dataset(panel, train_hours=600, validation_hours=100, lookback=168, horizon=3)
    forecast = boosted_quantiles(dataset)
    actual = actual_values(dataset, dataset.test)
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()
    assert crps(forecast, actual).mean() < 0.3


def test_with_peers__scores_what_they_have_written(tmp_path: Path) -> None:
    piece, path = Piece("homes", Cell(24, 28, 0), 2), tmp_path / "piece.npz"
    write_input(piece, tmp_path / "piece.input.npz")
    with np.load(tmp_path / "piece.input.npz") as given:
        origins, actual, target = given["origins"], given["actual"], given["target"]
        assert np.isfinite(target).all()
        np.testing.assert_allclose(target[origins[3] : origins[3] + 24], actual[3], rtol=1e-6)
        assert given["known"][origins[0], 0] in range(24)
        assert int(given["first_test"]) == 28 * 24 + (int(origins[0]) - 28 * 24)
    spread = np.linspace(-1, 1, 9)
    np.savez(tmp_path / "piece.nhits.npz", quantiles=actual[..., None] + spread)
    losses = with_peers({"champion": np.array([1.0])}, path)
    assert set(losses) == {"champion", "nhits", "coverage:nhits"}
    assert losses["coverage:nhits"] == 1
    assert losses["nhits"].shape == (len(origins),)
    assert 0 < losses["nhits"].mean() < 0.6
