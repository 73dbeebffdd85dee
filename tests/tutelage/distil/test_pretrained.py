import importlib.util

import numpy as np
import pytest
import torch

from tests.tutelage.builders import dataset_of, small_recipe, synthetic_panel, target_alone
from tutelage.distil import pretrained
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pipeline import label_parts, train_teachers
from tutelage.distil.pretrained import load_pretrained
from tutelage.distil.teachers import PRETRAINED_TEACHER, list_teachers
from tutelage.errors import TutelageError
from tutelage.forecasts import Contender, crps
from tutelage.judge.baselines import forecast_baselines

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
    model, asked = pretrained._fracast(), []
    real = model.forecast_batch
    monkeypatch.setattr(model, "forecast_batch", lambda contexts: (asked.append(contexts), real(contexts))[1])
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

    pretrained._fracast.cache_clear()
    monkeypatch.setattr(pretrained.importlib, "import_module", missing)
    with pytest.raises(TutelageError, match="pip install --no-deps fracast"):
        load_pretrained("fracast")


@needs_fracast
def test_load_pretrained__a_horizon_that_is_too_long(dataset: WindowDataset) -> None:
    long = dataset.shortened(60)
    with pytest.raises(TutelageError, match="up to 48 h, not 60 h"):
        load_pretrained("fracast")(long, dataset.test[:1])
