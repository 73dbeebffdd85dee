import json
import math

import numpy as np
import pytest

from benchmarks.common import Losses
from benchmarks.homes import (
    RESULTS,
    VARIANTS,
    Piece,
    dataset_of,
    every_piece,
    home_panels,
    mean_gain,
    pretrained_of,
    summarise,
)
from tutelage.distil.pretrained import load_pretrained
from tutelage.files import read_json


def losses_of(student: float, twin: float) -> Losses:
    by_variant = {f"{variant}_student": np.full(4, student) for variant in VARIANTS}
    by_variant |= {f"{variant}_untaught": np.full(4, twin) for variant in VARIANTS}
    return by_variant | {
        "twin": np.full(4, twin),
        "same_hour_28d": np.full(4, 1.5 * twin),
        "ridge": np.full(4, 3 * twin),
        "commit": np.array("a1"),
    }


def test_mean_gain__weighs_homes_not_their_size() -> None:
    row = mean_gain([(1, 0.9), (1, 0.9), (2, 1.01)])
    assert row["gain"] == pytest.approx(1 - math.sqrt(0.9 * 1.01))
    assert row["by_home"] == pytest.approx({"1": 0.1, "2": -0.01})
    assert row["homes"] == 2
    assert row["low"] < 0 < row["gain"] < row["high"]
    assert 0 < row["p"] < 0.5
    alone = summarise({Piece(0, 28, 0): losses_of(0.9, 1.0)})
    assert alone["p"] is None
    assert json.loads(json.dumps(alone, allow_nan=False)) == alone


def test_summarise__short_histories_are_those_up_to_eight_weeks() -> None:
    done = {Piece(number, 28, 0): losses_of(0.9 + 0.01 * number, 1.0) for number in range(3)}
    done |= {Piece(number, 100, 0): losses_of(2.0 + 0.01 * number, 1.0) for number in range(3)}
    figures = summarise(done)
    assert figures["mean_gain_short"] == pytest.approx(1 - (0.9 * 0.91 * 0.92) ** (1 / 3))
    assert figures["p"] < 0.05
    assert set(figures["by_history"]) == {"28", "100"}
    long = figures["by_history"]["100"]["gains"]["both_student over both_untaught"]
    assert long["gain"] == pytest.approx(-1, abs=0.02)
    short = figures["by_history"]["28"]
    assert (short["crps"]["twin"], short["pieces"], short["starts"], short["commit"]) == (1, 3, 1, "a1")
    gain = short["gains"]["sites_student over same_hour_28d"]["gain"]
    assert gain == pytest.approx(1 - (0.9 * 0.91 * 0.92) ** (1 / 3) / 1.5)


def test_summarise__an_earlier_history_stays_and_each_counts_once() -> None:
    four_weeks, two_weeks = {0: 0.9, 1: 0.92, 2: 0.95}, {0: 0.8, 1: 0.83, 2: 0.85}
    earlier = summarise(
        {Piece(number, 28, start): losses_of(ratio, 1.0) for number, ratio in four_weeks.items() for start in (0, 1)}
    )
    done = {Piece(number, 14, 0): losses_of(ratio, 1.0) for number, ratio in two_weeks.items()}
    figures = summarise(done | {Piece(0, 28, 0): losses_of(2.0, 1.0)}, earlier)
    assert figures["by_history"]["28"] == earlier["by_history"]["28"]
    of_both = math.prod([*four_weeks.values(), *two_weeks.values()]) ** (1 / 6)
    assert figures["mean_gain_short"] == pytest.approx(1 - of_both)


def test_results__stay_where_nothing_is_measured() -> None:
    committed = read_json(RESULTS)
    figures = summarise({}, committed)
    assert figures == {name: committed[name] for name in figures}


def test_every_piece__each_home_once_a_history_and_start() -> None:
    pieces = every_piece()
    assert len({piece.name for piece in pieces}) == len(pieces) == 4 * 3 * 17
    assert [piece.number for piece in pieces[:17]] == list(range(17))


def test_dataset_of__the_others_are_known_until_the_history_ends() -> None:
    piece = Piece(2, 28, 1)
    dataset = dataset_of(piece)
    hour, own = dataset.panel.step, len(home_panels()[2].step)
    assert int(hour[dataset.test[0]]) >= dataset.first_step + 28 * 24
    assert (dataset.transfer >= own).all()
    assert int(hour[own:].max()) < dataset.first_step + 28 * 24
    assert len(dataset.panel.series.unique()) == 17


def test_pretrained_of__a_window_of_another_home_is_forecast_once_for_all_scales(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short, long = Piece(2, 28, 0), Piece(2, 56, 0)
    first, second = dataset_of(short), dataset_of(long)
    assert first.scalers.observed != second.scalers.observed
    assert first.transfer.tolist() == second.transfer.tolist()
    origins = first.transfer[:3]
    pretrained_of(short)(first, origins)
    expected = load_pretrained("fracast")(second, origins)
    monkeypatch.setattr("benchmarks.homes.load_pretrained", lambda name: None)
    shared = pretrained_of(long)(second, origins)
    np.testing.assert_allclose(shared.quantiles, expected.quantiles, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(shared.mean, expected.mean, rtol=1e-3, atol=1e-3)
