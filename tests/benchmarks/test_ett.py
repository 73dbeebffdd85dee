import datetime as dt
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks import common, ett, ett_cells
from benchmarks import ett_protocol as protocol
from benchmarks.common import Cell, Losses
from benchmarks.ett_protocol import (
    HORIZONS,
    LONGEST,
    LOOKBACK,
    STUDENTS,
    VARIABLES,
    Network,
    Privilege,
    Series,
    Settings,
    borders,
    errors_of,
    future_of,
    make_series,
    origins_of,
    past_of,
    read_values,
    start_students,
    train_students,
)
from tests.tutelage.builders import recipe_of
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.windows import make_panel
from tutelage.errors import DataError
from tutelage.files import file_digest, read_json
from tutelage.judge.baselines import BASELINES
from tutelage.model.kinds import Budget

TINY = Settings(
    mixes=True,
    batch_windows=32,
    epochs=1,
    width=8,
    windows_an_epoch=64,
    teachers=1,
    seeds=2,
    validation_stride=500,
)


@pytest.fixture(scope="module")
def series() -> Series:
    random = np.random.default_rng(0)
    day = np.sin(np.arange(20 * 720 + LONGEST) * 2 * np.pi / 24)
    return make_series(day[:, None] + random.normal(size=(len(day), VARIABLES)), 24)


def test_borders__are_the_fields(series: Series) -> None:
    # ETTh1's border1s and border2s of the Informer's data loader, 8640, 11520 and 14400, and the windows it counts.
    assert series.rows == borders(24)
    assert [(rows.start, rows.stop) for rows in borders(24).values()] == [(96, 8640), (8640, 11520), (11520, 14400)]
    windows = {part: len(origins_of(rows, 96)) for part, rows in borders(24).items()}
    assert windows == {"train": 8640 - 96 - 96 + 1, "validation": 2880 - 96 + 1, "test": 2880 - 96 + 1}
    assert len(origins_of(borders(96)["test"], 24)) == 11520 - 24 + 1


def test_make_series__is_standardised_by_the_first_twelve_months() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=(15000, VARIABLES))
    before = make_series(values, 24)
    train = before.values[:, :8640].double()
    np.testing.assert_allclose(train.mean(dim=1), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(dim=1, correction=0), 1, atol=1e-6)
    values[8640:] += 100
    assert torch.equal(make_series(values, 24).values[:, :8640], before.values[:, :8640])


def test_windows__input_ends_where_the_target_begins(series: Series) -> None:
    past, clock = past_of(series, torch.tensor([1000, 2005]))
    assert torch.equal(past[:, 1], series.values[:, 2005 - LOOKBACK : 2005])
    assert torch.equal(future_of(series, torch.tensor([1000, 2005]))[:, 1], series.values[:, 2005 : 2005 + LONGEST])
    # 1000 is 16 o'clock, 2005 is 13 o'clock.
    np.testing.assert_allclose(clock[:, 1], np.sin(2 * np.pi * np.array([16, 13]) / 24), atol=1e-6)


def test_errors_of__against_a_hand_computation(series: Series) -> None:
    origins = torch.tensor([300, 700, 900])

    def wrong(part: torch.Tensor) -> torch.Tensor:
        truth = future_of(series, part)
        off = torch.zeros_like(truth)
        off[0, :, 0] = 2.0  # one variable of seven, one step
        off[:, :, 30:] = 50.0  # beyond the horizon
        return torch.stack([truth, truth + off])

    squared, absolute = errors_of(wrong, series, origins, 24)
    np.testing.assert_allclose(squared, [[0, 0, 0], [4 / (7 * 24)] * 3], rtol=1e-5)
    np.testing.assert_allclose(absolute, [[0, 0, 0], [2 / (7 * 24)] * 3], rtol=1e-5)


def test_read_values__says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTELAGE_ETT", raising=False)
    with pytest.raises(
        DataError, match=r"^source: the environment variable TUTELAGE_ETT must name the folder with ETT"
    ):
        read_values("ETTh1")
    monkeypatch.setenv("TUTELAGE_ETT", str(tmp_path))
    with pytest.raises(DataError, match=r"^source: no file matches .*ETTm1\.csv$"):
        read_values("ETTm1")
    header = "date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT"
    (tmp_path / "ETTh1.csv").write_text(f"{header}\n2016-07-01 00:00:00,1,2,3,4,5,6,7\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^source: ETTh1\.csv is not the file that the spec was written for"):
        read_values("ETTh1")
    monkeypatch.setitem(protocol.SHA256, "ETTh1", file_digest(tmp_path / "ETTh1.csv"))
    np.testing.assert_array_equal(read_values("ETTh1"), [[1, 2, 3, 4, 5, 6, 7]])


def test_network__forecasts_in_the_window_s_own_scale(series: Series) -> None:
    network = Network(2, 8, 0.0, mixes=True).eval()
    torch.nn.init.normal_(network.mixture)
    torch.nn.init.normal_(network.day_outside)
    past, clock = past_of(series, torch.tensor([500, 900]))
    plain, moved = network(past, clock), network(3 * past + 7, clock)
    torch.testing.assert_close(moved, 3 * plain + 7, rtol=1e-3, atol=1e-3)
    assert plain.shape == (2, VARIABLES, 2, LONGEST)


def test_network__a_window_is_read_by_itself(series: Series) -> None:
    network = Network(1, 8, 0.0, mixes=True).eval()
    torch.nn.init.normal_(network.mixture)
    origins = torch.tensor([500, 900, 1300])
    together, single = network(*past_of(series, origins)), network(*past_of(series, origins[1:2]))
    torch.testing.assert_close(together[:, :, 1:2], single, rtol=1e-4, atol=1e-4)


def test_privilege__by_kind_of_teacher(series: Series) -> None:
    settings = replace(TINY, teachers=2, sigma=0.5)
    privilege = Privilege(series, settings)
    origins = origins_of(series.rows["train"], LONGEST)[:50]
    true = future_of(series, origins)
    privileged, none, placebo = privilege(origins).split(2)
    assert (privileged - true).std() == pytest.approx(0.5, rel=0.02)
    assert none.eq(0).all()
    shown = privilege.shown[origins]
    assert shown.ne(origins).all()
    assert (placebo - future_of(series, shown)).std() == pytest.approx(0.5, rel=0.02)
    for rows in series.rows.values():  # a part's windows see windows of that part
        inside = origins_of(rows, LONGEST)
        assert torch.equal(privilege.shown[inside].sort().values, inside)


def test_students__share_their_start_and_the_twin_hears_no_teacher(series: Series) -> None:
    students = start_students(TINY, seed=3, kinds=2)
    for value in students.parameters():
        assert torch.equal(value[:2], value[2:])
    assert not torch.equal(students.variable.weight[0], students.variable.weight[1])
    assert students.dropout.seeds == (0, 1, 0, 1)

    count = len(origins_of(series.rows["train"], LONGEST))
    alpha, taught_by = torch.tensor([0.0, 0.0, 0.9, 0.9]), torch.zeros(4, dtype=torch.int64)
    weights = [
        train_students(series, TINY, torch.full((1, VARIABLES, count, LONGEST), level), alpha, taught_by, seed=0)[1]
        for level in (0.0, 5.0)
    ]
    low, high = (by_horizon[LONGEST]["out.weight"] for by_horizon in weights)
    assert torch.equal(low[:2], high[:2])
    assert not torch.equal(low[2:], high[2:])


def test_measure__all_test_windows_of_all_kinds() -> None:
    values = np.random.default_rng(0).normal(size=(20 * 360 + LONGEST, VARIABLES))
    losses = protocol.measure(make_series(values, 12), TINY)
    for horizon in HORIZONS:
        windows = 4 * 360 - horizon + 1
        assert losses[f"origin_{horizon}"][[0, -1]].tolist() == [16 * 360, 20 * 360 - horizon]
        for kind in (*STUDENTS, "teacher"):
            assert losses[f"{kind}_mse_{horizon}"].shape == (windows,)
        by_seed = losses[f"twin_mse_{horizon}_by_seed"]
        assert by_seed.mean() == pytest.approx(losses[f"twin_mse_{horizon}"].mean())
    row = ett.summarise_horizon("ETTm1", losses | {"origin_24": losses["origin_24"] * 4}, 24)
    assert row["mse"]["twin"] == pytest.approx(losses["twin_mse_24"].mean())


def test_settings__the_student_has_fewer_parameters_than_allowed() -> None:
    for settings in protocol.SETTINGS.values():
        students = start_students(replace(settings, seeds=1), seed=0, kinds=1)
        assert sum(value.numel() for value in students.parameters()) < 300_000


def _losses(gain: float, *, hours: int = 2000) -> dict[str, np.ndarray]:
    """Losses of a cell in which the student is `gain` better than its twin."""
    twin = np.random.default_rng(0).uniform(1, 2, hours)
    losses = {"twin": twin, "student": (1 - gain) * twin, "unprivileged": twin, "placebo": 1.5 * twin}
    losses |= {f"{name}_by_seed": np.full(2, values.mean()) for name, values in losses.items()}
    return losses | {
        "hour": np.arange(hours),
        "teacher": 0.5 * twin,
        **dict.fromkeys(BASELINES, 2 * twin),
        "n_train": np.array(9),
    }


def test_summarise__gains_and_holm_over_the_cells() -> None:
    worse = _losses(-0.1)
    figures = ett.summarise({Cell(1, 50, 0): _losses(0.1), Cell(1, 50, 1): _losses(0.2), Cell(24, 50, 0): worse})
    better, harmed = figures["cells"]["1h-50d"], figures["cells"]["24h-50d"]
    assert better["gain"]["student"]["estimate"] == pytest.approx(0.15)
    assert better["gain_by_origin"] == pytest.approx([0.1, 0.2])
    assert better["gain"]["placebo"]["estimate"] == pytest.approx(-0.5)
    p = better["gain"]["student"]["p"]
    assert 0 < p < 1e-6
    assert (better["p_holm"], better["p_worse_holm"]) == (pytest.approx(2 * p, rel=1e-6), pytest.approx(1))
    assert (harmed["p_holm"], harmed["p_worse_holm"]) == (pytest.approx(1), pytest.approx(0))
    text = ett.table(figures)
    assert "+15.0%" in text
    assert "TimeKD" not in text
    assert better["floor"]["estimate"] == pytest.approx(1 - 0.85 / 2)
    kept = ett.summarise({Cell(24, 50, 0): _losses(0.3)}, figures)["cells"]
    assert {name: round(row["gain"]["student"]["estimate"], 6) for name, row in kept.items()} == {
        "1h-50d": 0.15,
        "24h-50d": 0.3,
    }


def test_results__stay_where_nothing_is_measured_and_can_be_shown() -> None:
    committed = read_json(ett.RESULTS)
    figures = ett.summarise({}, committed)
    assert figures == {name: committed[name] for name in figures}
    assert len(ett.table(figures).splitlines()) == 3 + len(figures["protocol"]) + 2 + len(figures["cells"])


def test_summarise_horizon__a_quarter_of_an_hour_is_no_hour() -> None:
    random = np.random.default_rng(0)
    losses = {"origin_192": np.arange(4000)}
    for kind in (*STUDENTS, "teacher"):
        for metric in ("mse", "mae"):
            losses[f"{kind}_{metric}_192"] = random.uniform(1, 2, 4000)
            losses[f"{kind}_{metric}_192_by_seed"] = np.array([1.5, 1.5])
    losses["commit"] = np.array("a1")
    quarters, hours = (ett.summarise_horizon(name, losses, 192) for name in ("ETTm1", "ETTh1"))
    assert (quarters["pieces"], quarters["commit"]) == (1, "a1")
    assert quarters["gain"]["student"]["windows"] == 1000
    assert hours["gain"]["student"]["windows"] == 4000
    assert quarters["timekd"] == {"mse": 0.355, "mae": 0.367}
    assert "timekd" not in hours
    rows = {name: row | {"p_holm": 0.5} for name, row in (("ETTm1-192", quarters), ("ETTh1-192", hours))}
    text = ett.table({"protocol": rows, "student_parameters": {"ETTm1": 1000}, "cells": {}})
    assert text.count("0.355/0.367") == 1
    assert f"{quarters['gain_mae']['estimate']:+.1%}" in text.splitlines()[3]


def test_path_of__each_piece_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    measured: list[ett.Piece] = []

    def measure(piece: ett.Piece) -> Losses:
        measured.append(piece)
        return {"twin": np.arange(3.0)}

    wanted: list[ett.Piece] = ["ETTh1", Cell(1, 50, 0)]
    for piece in [*wanted, *wanted]:
        losses = common.load_or_measure(ett.path_of(piece), partial(measure, piece))
        np.testing.assert_array_equal(losses["twin"], [0, 1, 2])
    assert measured == wanted


@pytest.fixture
def transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up transformer of 250 days, and a recipe of seconds."""
    spec = load_dataset_spec(ett_cells.SPEC)
    hours, start = 250 * 24, dt.datetime(2017, 1, 1, tzinfo=dt.UTC)
    random = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "series_id": ["ett"] * hours,
            "time_utc": [start + dt.timedelta(hours=h) for h in range(hours)],
            **{name: random.normal(size=hours) for name in spec.names()},
        }
    )
    panel = make_panel(table, random.normal(size=(hours, 4)).astype(np.float32), spec)
    monkeypatch.setattr(ett_cells, "load_transformer", lambda: (panel, start, start + dt.timedelta(hours=hours)))
    budget = Budget(epochs=1)
    tiny = recipe_of(
        ensemble_size=1, teacher_width=8, student_width=8, teacher_training=budget, student_training=budget
    )
    monkeypatch.setattr(common, "RECIPE", tiny)
    monkeypatch.setattr(common, "RECIPES", dict.fromkeys(common.RECIPES, tiny))


def test_measure_cell__tests_on_the_last_days(transformer: None) -> None:
    panel, _, _ = ett_cells.load_transformer()
    for origin in (0, 1):
        losses = ett_cells.measure_cell(Cell(1, 50, origin))
        last = int(panel.step[-1]) - origin * 60 * 24
        assert losses["hour"][[0, -1]].tolist() == [last + 1 - 60 * 24, last]
        assert losses["n_train"] == 40 * 24 - 24
        for kind in (*STUDENTS, "teacher", "seasonal_naive_24h"):
            assert losses[kind].shape == losses["hour"].shape
