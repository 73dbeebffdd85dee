from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tutelage.builders import dataset_of, small_recipe, synthetic_panel
from tutelage.distil.base import fit_base, forecast_simple
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pipeline import label_parts, train_teachers
from tutelage.distil.simple import FOLDS, fit_simple_teacher
from tutelage.distil.teachers import quantile_labels


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([900]), train_hours=600, validation_hours=150, lookback=30, horizon=3)


def test_fit_simple_teacher__is_the_mean_of_the_simple_forecasts(dataset: WindowDataset) -> None:
    forecasts = fit_simple_teacher(dataset)(dataset, dataset.validation)
    simple = forecast_simple(fit_base(dataset), dataset, dataset.validation).values()
    np.testing.assert_allclose(forecasts.quantiles, np.mean([each.quantiles for each in simple], axis=0))
    np.testing.assert_allclose(forecasts.mean, np.mean([each.mean for each in simple], axis=0))


def test_fit_simple_teacher__a_training_window_is_forecast_without_its_block(dataset: WindowDataset) -> None:
    teacher = fit_simple_teacher(dataset)
    block = replace(dataset, validation=dataset.train[:0]).blocks(FOLDS)[2]
    mixed = torch.cat([dataset.validation[:3], block.validation[:5]])
    forecasts = teacher(dataset, mixed)
    simple = forecast_simple(fit_base(block), dataset, block.validation[:5]).values()
    np.testing.assert_allclose(forecasts.quantiles[3:], np.mean([each.quantiles for each in simple], axis=0))
    np.testing.assert_array_equal(forecasts.mean[:3], teacher(dataset, dataset.validation).mean[:3])


def test_train_teachers__simple_forecasts_are_one_of_them(dataset: WindowDataset) -> None:
    trained = train_teachers(dataset, small_recipe(simple=True), seed=0)
    assert [spec.name for spec in trained.teachers] == ["teacher", "simple"]
    assert trained.progress["simple"].best_epoch == [1]
    both = label_parts(trained.teachers, dataset, seed=0).validation.log_probabilities.exp()
    [network, _] = trained.teachers
    of_network = label_parts({network: trained.teachers[network]}, dataset, seed=0).validation.log_probabilities.exp()
    simple = quantile_labels(fit_simple_teacher(dataset), dataset, dataset.validation).log_probabilities.exp()
    torch.testing.assert_close(both, (of_network + simple) / 2, rtol=1e-4, atol=1e-6)
