import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import dataset_of, hours_span, synthetic_panel
from tutelage.data.windows import Panel, window_origins
from tutelage.forecasts import QUANTILE_LEVELS, Contender, Forecasts
from tutelage.judge.baselines import (
    BASELINES,
    forecast_baselines,
    last_value,
    mean_of_seasons,
    ridge,
    same_hour,
    seasonal_naive,
)

SEASON, HORIZON, MEDIAN = 24, 3, QUANTILE_LEVELS.index(0.5)
TEST = torch.tensor([150, 160])


def panel_of(*lengths: int) -> Panel:
    return synthetic_panel(lengths or [200])


def origins_of(panel: Panel, first: int = 30, stop: int = 120) -> Tensor:
    return window_origins(panel, hours_span(first, stop), lookback=1, horizon=HORIZON)


def naive(panel: Panel, origins: Tensor = TEST, train: Tensor | None = None) -> Forecasts:
    train = origins_of(panel) if train is None else train
    return seasonal_naive(panel, train, origins, horizon=HORIZON, season=SEASON)


def misses(panel: Panel, train: Tensor) -> np.ndarray:
    """(windows, horizon), row by row."""
    target = panel.observed[:, 0].double().numpy()
    return np.array([[target[i + lead] - target[i + lead - SEASON] for lead in range(HORIZON)] for i in train.tolist()])


def test_seasonal_naive__is_the_value_one_season_before_and_its_misses_in_training() -> None:
    panel = panel_of()
    forecast = naive(panel)
    before = np.stack([panel.observed[i - SEASON : i - SEASON + HORIZON, 0].numpy() for i in TEST.tolist()])
    missed = misses(panel, origins_of(panel))
    np.testing.assert_allclose(forecast.mean, before + missed.mean(axis=0), rtol=1e-5)
    for lead in range(HORIZON):
        spread = np.quantile(missed[:, lead], QUANTILE_LEVELS)
        np.testing.assert_allclose(forecast.quantiles[:, lead], before[:, [lead]] + spread, rtol=1e-5, atol=1e-5)


def test_seasonal_naive__of_a_seasonal_series_is_exact() -> None:
    panel = panel_of()
    panel.observed[:, 0] = torch.arange(200) % SEASON
    forecast = naive(panel)
    truth = [[6, 7, 8], [16, 17, 18]]
    assert forecast.mean.tolist() == truth
    assert (forecast.quantiles == np.array(truth)[..., None]).all()


def test_seasonal_naive__the_spread_knows_the_training_part_alone() -> None:
    panel = panel_of()
    before = naive(panel)
    panel.observed[120:126] += 100.0  # after the training part, and no season before a test window
    assert np.array_equal(naive(panel).quantiles, before.quantiles)
    panel.observed[100] += 100.0
    assert not np.array_equal(naive(panel).quantiles, before.quantiles)


def test_seasonal_naive__takes_an_earlier_season_where_the_value_is_missing() -> None:
    panel = panel_of()
    full = naive(panel)
    panel.observed[150 - SEASON, 0] = torch.nan
    forecast = naive(panel)
    change = panel.observed[150 - 2 * SEASON, 0] - panel_of().observed[150 - SEASON, 0]
    assert forecast.mean[0, 0] == pytest.approx(full.mean[0, 0] + change.item(), rel=1e-5)
    assert np.array_equal(forecast.mean[0, 1:], full.mean[0, 1:])


def test_seasonal_naive__without_an_earlier_season_in_its_series_is_the_training_mean() -> None:
    panel = panel_of(130, 130)
    train, origins = origins_of(panel), torch.tensor([135])  # the sixth hour of the second series
    truth = np.mean([panel.observed[i : i + HORIZON, 0].double().numpy() for i in train.tolist()])
    forecast = naive(panel, origins)
    np.testing.assert_allclose(forecast.mean[0], truth + misses(panel, train).mean(axis=0), rtol=1e-5)
    panel.observed[126:130] += 100.0  # the end of the first series, after its training part
    assert np.array_equal(naive(panel, origins).quantiles, forecast.quantiles)


def test_seasonal_naive__a_training_part_shorter_than_a_season_is_still_forecast_from() -> None:
    panel = panel_of()
    forecast = naive(panel, train=origins_of(panel, 0, 20))
    assert np.isfinite(forecast.mean).all()
    assert np.isfinite(forecast.quantiles).all()


def test_seasonal_naive__refuses_a_season_that_is_not_known_at_issue_time() -> None:
    panel = panel_of()
    with pytest.raises(ValueError, match="a season of 2 steps is not known 3 steps ahead"):
        seasonal_naive(panel, origins_of(panel), TEST, horizon=3, season=2)


def test_last_value__is_the_hour_before_with_its_errors_in_training() -> None:
    panel, train = panel_of(), origins_of(panel_of())
    forecast = last_value(panel, train, TEST, horizon=HORIZON)
    target = panel.observed[:, 0].double().numpy()
    errors = np.array([[target[i + lead] - target[i - 1] for lead in range(HORIZON)] for i in train.tolist()])
    before = target[TEST.numpy() - 1][:, None]
    np.testing.assert_allclose(forecast.mean, before + errors.mean(axis=0), rtol=1e-5, atol=1e-5)
    expected = before[..., None] + np.quantile(errors, QUANTILE_LEVELS, axis=0).T
    np.testing.assert_allclose(forecast.quantiles, expected, rtol=1e-5, atol=1e-5)


def test_mean_of_seasons__takes_the_other_season_where_one_is_missing() -> None:
    panel = panel_of(400)
    panel.observed[:, 0] = 1.0
    panel.observed[300 - 24, 0], panel.observed[300 - 168, 0] = 4.0, 2.0
    train = origins_of(panel, first=30, stop=120)
    at = torch.tensor([300])
    assert mean_of_seasons(panel, train, at, horizon=HORIZON).quantiles[0, 0, MEDIAN] == pytest.approx(3.0)
    panel.observed[[300 - 24 * back for back in (1, 2, 3, 4)], 0] = torch.nan
    assert mean_of_seasons(panel, train, at, horizon=HORIZON).quantiles[0, 0, MEDIAN] == pytest.approx(2.0)


def test_same_hour__is_the_quantiles_of_the_last_days_known_at_issue_time() -> None:
    panel = panel_of(400)
    panel.observed[:, 0] = torch.arange(400) // 24
    train = origins_of(panel)
    forecast = same_hour(panel, train, torch.tensor([240]), horizon=30, days=3)
    assert forecast.quantiles[0, 0, MEDIAN] == 8  # days 7, 8 and 9
    assert forecast.mean[0, 23] == 8
    assert forecast.quantiles[0, 24, MEDIAN] == 8  # a day further ahead yesterday is not known yet
    assert forecast.quantiles[0, 24, 0] < 7.1


def test_same_hour__without_any_earlier_day_takes_the_training_part() -> None:
    panel = panel_of(200)
    train = origins_of(panel)
    forecast = same_hour(panel, train, torch.tensor([10]), horizon=1, days=7)
    target = panel.observed[train, 0].numpy()
    np.testing.assert_allclose(forecast.quantiles[0, 0], np.quantile(target, QUANTILE_LEVELS), rtol=1e-5)


def test_baselines__see_nothing_from_the_issue_time_on() -> None:
    panel = synthetic_panel([400])
    dataset = dataset_of(panel, train_hours=220, validation_hours=80, lookback=24, horizon=HORIZON)
    at = dataset.test[-1:]
    before = forecast_baselines(dataset, at)
    assert set(before) == set(BASELINES)
    panel.observed[int(at[0]) :] += 100.0
    after = forecast_baselines(dataset, at)
    for name, forecast in before.items():
        np.testing.assert_array_equal(after[name].quantiles, forecast.quantiles, err_msg=name)
        assert (np.diff(forecast.quantiles, axis=-1) >= 0).all(), name


def test_baselines__a_season_that_is_too_short_is_left_out() -> None:
    dataset = dataset_of(synthetic_panel([700]), train_hours=400, validation_hours=100, lookback=24, horizon=30)
    names = set(forecast_baselines(dataset, dataset.test[:1]))
    assert names == set(BASELINES) - {Contender.SEASONAL_NAIVE_24H, Contender.MEAN_OF_SEASONS}
    with pytest.raises(ValueError, match="a season of 24 steps is not known 30 steps ahead"):
        mean_of_seasons(dataset.panel, dataset.train, dataset.test, horizon=30)


def test_ridge__learns_from_the_validation_part_too() -> None:
    panel = synthetic_panel([400])
    dataset = dataset_of(panel, train_hours=220, validation_hours=80, lookback=24, horizon=HORIZON)
    before = ridge(dataset, dataset.test[-1:]).mean
    panel.observed[dataset.validation[5:15], 0] += 3.0
    assert not np.array_equal(ridge(dataset, dataset.test[-1:]).mean, before)
