import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tutelage.builders import (
    START,
    dataset_of,
    small_recipe,
    small_spec,
    synthetic_panel,
    target_alone,
)
from tutelage.distil.base import fit_base, forecast_simple, forecast_with_base
from tutelage.distil.blocks import fit_students, fit_teachers
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pipeline import label_parts, train_teachers
from tutelage.distil.pretrained import load_pretrained
from tutelage.distil.teachers import PRETRAINED_TEACHER, forecast_exported, list_teachers
from tutelage.errors import TutelageError
from tutelage.forecasts import Contender, crps
from tutelage.judge.baselines import forecast_baselines
from tutelage.model import pretrained
from tutelage.model.export import export_student, student_card
from tutelage.model.inference import load_student
from tutelage.model.networks import Forecaster
from tutelage.model.pretrained import pretrained_network

needs_fracast = pytest.mark.skipif(
    importlib.util.find_spec("fracast") is None, reason="fracast is not installed: `make .venv/installed` installs it"
)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    """A daily cycle with some noise."""
    panel = target_alone(synthetic_panel([600]))
    wave = 5 + 3 * torch.sin(panel.known[:, :1] * (2 * torch.pi / 24))
    panel.observed[:] = wave + 0.1 * panel.observed
    return dataset_of(panel, train_hours=450, validation_hours=100, lookback=30, horizon=3)


@needs_fracast
def test_load_pretrained__forecasts_a_daily_cycle_better_than_its_last_value(dataset: WindowDataset) -> None:
    origins = dataset.test[:12]
    forecast = load_pretrained("fracast")(dataset, origins)
    actual = dataset.truth(origins).double().numpy()
    last = forecast_baselines(dataset, origins, [Contender.LAST_VALUE])[Contender.LAST_VALUE]
    assert forecast.quantiles.shape == (12, 3, 99)
    assert crps(forecast, actual).mean() < 0.5 * crps(last, actual).mean()


@needs_fracast
def test_load_pretrained__computes_each_window_once_and_sees_nothing_after_it(
    dataset: WindowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = pretrained_network("fracast"), []
    real = model.in_chunks
    monkeypatch.setattr(model, "in_chunks", lambda contexts: (asked.append(contexts.numpy()), real(contexts))[1])
    forecast, origins = load_pretrained("fracast"), dataset.test[:3]
    first = forecast(dataset, origins)
    again = forecast(dataset, origins.flip(0))
    assert [len(contexts) for contexts in asked] == [3]
    np.testing.assert_array_equal(again.quantiles[::-1], first.quantiles)
    last = dataset.panel.observed[origins - 1, 0].numpy()
    np.testing.assert_array_equal(asked[0][:, -1], last)
    assert np.isnan(asked[0][0, : 672 - int(origins[0])]).all()


@needs_fracast
def test_train_teachers__a_pretrained_model_is_one_of_them(dataset: WindowDataset) -> None:
    recipe = small_recipe(pretrained="fracast")
    small = WindowDataset(**(vars(dataset) | {"train": dataset.train[:40], "validation": dataset.validation[:35]}))
    specs = list_teachers(recipe, 3)
    assert [spec.name for spec in specs] == ["teacher", PRETRAINED_TEACHER]
    model = load_pretrained("fracast")
    trained = train_teachers(small, recipe, seed=0, pretrained=model)
    assert trained.progress[PRETRAINED_TEACHER].best_epoch == [1]
    both = label_parts(trained.teachers, small, seed=0).validation.log_probabilities.exp()
    single = [label_parts({spec: trained.teachers[spec]}, small, seed=0).validation for spec in specs]
    torch.testing.assert_close(both, sum(each.log_probabilities.exp() for each in single) / 2)


def test_train_teachers__a_pretrained_model_that_is_not_given(dataset: WindowDataset) -> None:
    with pytest.raises(ValueError, match="the model fracast is not given"):
        train_teachers(dataset, small_recipe(pretrained="fracast"), seed=0)


def test_load_pretrained__is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    pretrained_network.cache_clear()
    monkeypatch.setattr(pretrained.importlib, "import_module", missing)
    with pytest.raises(TutelageError, match="pip install --no-deps fracast"):
        load_pretrained("fracast")


@needs_fracast
def test_load_pretrained__a_horizon_that_is_too_long(dataset: WindowDataset) -> None:
    long = dataset.shortened(60)
    with pytest.raises(TutelageError, match="up to 48 h, not 60 h"):
        load_pretrained("fracast")(long, dataset.test[:1])


@needs_fracast
def test_pretrained_network__is_the_packages_forecast() -> None:
    fracast = importlib.import_module("fracast")
    past = 40 + 7 * np.random.default_rng(0).normal(size=(20, 672)).astype(np.float32)
    past[0, :300] = np.nan
    expected = fracast.FracastModel.from_pretrained(weights="fp32").forecast_batch(past)
    native = pretrained_network("fracast").in_chunks(torch.from_numpy(past)).numpy()
    np.testing.assert_allclose(native, np.sort(expected, axis=-1), atol=1e-3)


@needs_fracast
def test_export_student__holds_the_pretrained_model(dataset: WindowDataset, tmp_path: Path) -> None:
    """A network of one column, averaged with it: the graph forecasts what the core does, also early in a history."""
    base = fit_base(dataset, {Contender.PRETRAINED: 0.6, Contender.RIDGE: 0.1}, pretrained="fracast")
    config = dataset.student_config(small_recipe())
    student = Forecaster(config, dataset.scalers, 1)
    card = student_card(student, small_spec(), trained_until=START, base=base)
    assert (card["lookback_hours"], card["complete_hours"]) == (672, 30)
    assert card["contains"] == "weights of fracast 0.1.0, Apache-2.0"
    export_student(student, dataset.bins, card, tmp_path / "export", base=base)
    windows = torch.cat([dataset.train[:3], dataset.test[:5]])
    [expected] = forecast_with_base(student, dataset, windows, base)
    forecast = forecast_exported(load_student(tmp_path / "export"), dataset, windows)
    np.testing.assert_allclose(forecast.quantiles, expected.quantiles, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(forecast.mean, expected.mean, rtol=1e-3, atol=1e-3)
    simple = forecast_simple(base, dataset, windows)[Contender.PRETRAINED]
    assert simple.quantiles.shape == (8, 3, 99)


@needs_fracast
def test_fit_students__weighs_the_pretrained_model_by_blocks(dataset: WindowDataset) -> None:
    recipe = small_recipe(base="simple", student_pretrained="fracast", gate="none")
    small = WindowDataset(**(vars(dataset) | {"train": dataset.train[:120], "validation": dataset.validation[:35]}))
    labels = {Contender.STUDENT: fit_teachers(small, recipe, seed=0).labels}
    bases = fit_students(small, labels, recipe, seed=0).bases
    assert all(base.pretrained == "fracast" for base in bases.values() if Contender.PRETRAINED in base.weights)
    assert any(Contender.PRETRAINED in base.weights for base in bases.values())
