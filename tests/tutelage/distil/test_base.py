from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tutelage.builders import START, dataset_of, small_network, small_spec, synthetic_panel
from tutelage.distil.base import (
    combine_held_out,
    fit_base,
    fit_simple,
    forecast_held_out,
    forecast_simple,
    forecast_with_base,
    linear_inputs,
    weigh,
)
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.recipe import Recipe
from tutelage.distil.students import forecast_students
from tutelage.distil.teachers import exported_inputs, forecast_exported
from tutelage.errors import GapsError
from tutelage.forecasts import Contender, crps
from tutelage.judge.baselines import same_hour
from tutelage.model.aggregation import Atom
from tutelage.model.base import SEEN_DAYS, SIMPLE, Base
from tutelage.model.export import export_student, student_card
from tutelage.model.inference import load_student
from tutelage.model.networks import Forecaster, select_members

RIDGE, LAST = Contender.RIDGE, Contender.LAST_VALUE
WEIGHTS = {RIDGE: 0.2, Contender.SAME_HOUR_7D: 0.1, Contender.SAME_HOUR_14D: 0.3, LAST: 0.1}


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([900]), train_hours=600, validation_hours=150, lookback=30, horizon=3)


@pytest.fixture(scope="module")
def base(dataset: WindowDataset) -> Base:
    return fit_base(dataset, WEIGHTS)


def test_fit_base__without_weights_has_all_simple_forecasts(dataset: WindowDataset) -> None:
    base = fit_base(dataset)
    assert tuple(base.weights) == SIMPLE
    assert base.network_share == 1
    assert base.lookback(30) == 30
    assert base.linear is not None
    assert base.trees is not None


def test_weighed__keeps_what_has_a_weight(dataset: WindowDataset) -> None:
    every = fit_base(dataset)
    without = every.weighed({LAST: 0.5})
    assert (without.linear, without.trees) == (None, None)
    assert without.network_share == 0.5
    both = every.weighed({RIDGE: 0.5, Contender.BOOSTED: 0.2})
    assert (both.linear, both.trees) == (every.linear, every.trees)
    assert both.lookback(30) == 28 * 24


def test_fit_base__too_few_windows_for_ridge() -> None:
    few = dataset_of(synthetic_panel([60]), train_hours=40, validation_hours=10, lookback=30, horizon=6)
    assert RIDGE not in fit_base(few).weights
    assert fit_base(few, {LAST: 0.5}).linear is None
    with pytest.raises(GapsError):
        fit_base(few, {RIDGE: 0.5})


def test_forecast_simple__are_those_of_ridge_last_value_and_the_same_hour(dataset: WindowDataset, base: Base) -> None:
    simple = forecast_simple(base, dataset, dataset.test)
    assert set(simple) == set(WEIGHTS)
    assert base.linear is not None
    expected = base.linear.forecast(*linear_inputs(dataset, dataset.test))
    np.testing.assert_array_equal(simple[RIDGE].quantiles, expected.quantiles)
    last = dataset.panel.observed[dataset.test - 1, 0].double().numpy()
    np.testing.assert_allclose(simple[LAST].mean, last[:, None] + base.changes.mean)
    # The floor computes the same hour in another way, from the panel.
    for days in (7, 14):
        floor = same_hour(dataset.panel, dataset.train, dataset.test, horizon=3, days=days)
        name = Contender(f"same_hour_{days}d")
        np.testing.assert_allclose(simple[name].quantiles, floor.quantiles, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(simple[name].mean, floor.mean, rtol=1e-5, atol=1e-6)


def test_forecast_simple__no_window_sees_what_is_before_the_history(dataset: WindowDataset, base: Base) -> None:
    early = dataset.train[:5]
    before = forecast_simple(base, dataset, early)[Contender.SAME_HOUR_14D]
    assert np.isfinite(before.quantiles).all()
    # The lookback is complete from hour 30 on: only the last day is there, and its value stands in for all others.
    same = dataset.panel.observed[early - 24, 0].double().numpy()
    np.testing.assert_allclose(before.mean[:, 0], same)
    np.testing.assert_allclose(before.quantiles[:, 0, [0, 98]], np.stack([same, same], axis=1))


def test_forecast_with_base__is_the_weighted_mean_quantile_by_quantile(dataset: WindowDataset, base: Base) -> None:
    students = small_network(dataset, members=2)
    simple = forecast_simple(base, dataset, dataset.test)
    members = list(forecast_students(students, dataset, dataset.test))
    assert base.network_share == pytest.approx(0.3)
    for based, member in zip(forecast_with_base(students, dataset, dataset.test, base), members, strict=True):
        expected = 0.3 * member.quantiles + sum(weight * simple[name].quantiles for name, weight in WEIGHTS.items())
        np.testing.assert_allclose(based.quantiles, expected)
        assert (np.diff(based.quantiles, axis=-1) >= -1e-12).all()


def test_forecast_with_base__without_one_is_the_networks(dataset: WindowDataset) -> None:
    students = small_network(dataset, members=1)
    [expected] = forecast_students(students, dataset, dataset.test)
    [forecast] = forecast_with_base(students, dataset, dataset.test, None)
    assert np.array_equal(forecast.quantiles, expected.quantiles)


@pytest.mark.parametrize(
    "weights", [WEIGHTS, {LAST: 1.0}, {Contender.BOOSTED: 0.7}, {Contender.SAME_HOUR_28D: 0.4, RIDGE: 0.6}, {}]
)
def test_export_student__the_graph_is_the_average(
    dataset: WindowDataset, weights: dict[Contender, float], tmp_path: Path
) -> None:
    base = fit_base(dataset, weights)
    student = select_members(small_network(dataset, members=1), dataset.scalers, [0])
    card = student_card(student, small_spec(), trained_until=START, base=base)
    days = max([SEEN_DAYS.get(name, 0) for name in weights], default=0)
    assert (card["lookback_hours"], card["complete_hours"]) == (max(30, 24 * days), 30)
    export_student(student, dataset.bins, card, tmp_path / "export", base=base)
    windows = torch.cat([dataset.train[:3], dataset.test])  # the first ones have hours before the history
    [expected] = forecast_with_base(student, dataset, windows, base)
    forecast = forecast_exported(load_student(tmp_path / "export"), dataset, windows)
    np.testing.assert_allclose(forecast.quantiles, expected.quantiles, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(forecast.mean, expected.mean, rtol=1e-4, atol=1e-4)
    [network] = forecast_students(student, dataset, windows)
    members = base.members(network, forecast_simple(base, dataset, windows))
    assert card["shares"] == members.shares
    np.testing.assert_allclose(members.average().quantiles, expected.quantiles)
    exported = load_student(tmp_path / "export")
    inputs = dict(zip(("observed", "known"), exported_inputs(exported, dataset, windows), strict=True))
    for found, each in zip(
        exported.session.run(["member_means", "member_quantiles"], inputs),
        (members.mean, members.quantiles),
        strict=True,
    ):
        np.testing.assert_allclose(found.swapaxes(0, 1), each, rtol=1e-4, atol=1e-4)
    graph = (tmp_path / "export" / "student.onnx").read_bytes()
    assert len(graph) < 2**20
    assert str(Path.cwd()).encode() not in graph


def test_export_student__a_day_from_a_week_with_every_forecast_is_below_one_megabyte(tmp_path: Path) -> None:
    dataset = dataset_of(synthetic_panel([1600]), train_hours=1200, validation_hours=150, lookback=168, horizon=24)
    base = fit_base(dataset, dict.fromkeys(SIMPLE, 0.1))
    student = Forecaster(dataset.student_config(Recipe()), dataset.scalers, 1)
    card = student_card(student, small_spec(), trained_until=START, base=base)
    export_student(student, dataset.bins, card, tmp_path / "export", base=base)
    assert (tmp_path / "export" / "student.onnx").stat().st_size < 2**20


@pytest.mark.parametrize("weights", [WEIGHTS, {}])
def test_export_student__settles_at_an_atom(
    dataset: WindowDataset, weights: dict[Contender, float], tmp_path: Path
) -> None:
    target = dataset.panel.observed[:, 0]
    atom = Atom(float(target.min()), float(target.std()))
    base = replace(fit_base(dataset, weights), atom=atom)
    student = select_members(small_network(dataset, members=1), dataset.scalers, [0])
    card = student_card(student, small_spec(), trained_until=START, base=base)
    export_student(student, dataset.bins, card, tmp_path / "export", base=base)
    [expected] = forecast_with_base(student, dataset, dataset.test, base)
    assert (expected.quantiles == atom.value).any()
    forecast = forecast_exported(load_student(tmp_path / "export"), dataset, dataset.test)
    # A quantile at the very edge of the reach may settle in one computation and not in the other.
    close = np.isclose(forecast.quantiles, expected.quantiles, rtol=1e-4, atol=1e-4)
    assert close.mean() > 0.999
    np.testing.assert_allclose(forecast.mean, expected.mean, rtol=1e-2, atol=1e-2)


def test_weigh__networks_and_simple_forecasts_of_blocks_that_they_have_not_learned_from(dataset: WindowDataset) -> None:
    networks = {Contender.TWIN: small_network(dataset, members=1)}
    blocks = dataset.blocks(3)
    simple = fit_simple(dataset.whole(), blocks).alone
    held_out = forecast_held_out(blocks, [networks] * 3, simple)
    assert len(held_out.truth) == len(dataset.train) + len(dataset.validation)
    base = weigh(held_out, Contender.TWIN, simple.base)
    assert base.atom is None
    assert all(0 < weight <= 1 for weight in base.weights.values())
    combined = crps(combine_held_out(held_out, Contender.TWIN, base), held_out.truth).mean()
    for single in (held_out.networks[Contender.TWIN], *held_out.simple.values()):
        assert combined <= crps(single, held_out.truth).mean() * 1.001


def test_combine_held_out__without_a_base_is_the_networks(dataset: WindowDataset) -> None:
    networks = {Contender.TWIN: small_network(dataset, members=1)}
    held_out = forecast_held_out([dataset], [networks], None)
    assert held_out.simple == {}
    assert combine_held_out(held_out, Contender.TWIN, None) is held_out.networks[Contender.TWIN]
