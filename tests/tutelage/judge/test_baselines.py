import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import hours_span, synthetic_panel
from tutelage.data.windows import Panel, window_origins
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts
from tutelage.judge.baselines import seasonal_naive

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
    with pytest.raises(ValueError, match="a season of 2 h is not known 3 h ahead"):
        seasonal_naive(panel, origins_of(panel), TEST, horizon=3, season=2)
