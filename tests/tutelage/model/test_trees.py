import lightgbm
import numpy as np
import pytest
import torch

from tutelage.data.grid import HOURLY
from tutelage.forecasts import Forecasts, crps
from tutelage.model import trees as module
from tutelage.model.days import recent_days
from tutelage.model.trees import (
    LEVELS,
    PARAMETERS,
    PAST_DAYS,
    TREES,
    Trees,
    fit_trees,
    tree_columns,
    tree_quantiles,
)

WINDOWS, HORIZON, HOURS = 900, 3, 28 * 24


@pytest.fixture(scope="module")
def windows() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """A daily cycle with noise whose size follows the hour: past, known (hour, weekday, holiday), truth."""
    random = np.random.default_rng(0)
    hour = np.arange(HOURS + WINDOWS + HORIZON)
    series = 5 + np.sin(hour / 24 * 2 * np.pi) + (0.1 + 0.4 * (hour % 24 > 12)) * random.normal(size=len(hour))
    place = np.arange(WINDOWS)[:, None]
    past = torch.from_numpy(series[place + np.arange(HOURS)]).float()
    ahead = place + HOURS + np.arange(HORIZON)
    known = torch.from_numpy(np.stack([ahead % 24, ahead // 24 % 7, ahead * 0], axis=-1)).float()
    return past, known, series[ahead]


@pytest.fixture(scope="module")
def trees(windows: tuple[torch.Tensor, torch.Tensor, np.ndarray]) -> Trees:
    past, known, truth = windows
    return fit_trees(past[:700], known[:700], truth[:700])


def test_fit_trees__forecast_what_lightgbm_does(
    windows: tuple[torch.Tensor, torch.Tensor, np.ndarray], trees: Trees
) -> None:
    past, known, truth = windows
    change = (truth[:700] - past[:700, -1:].double().numpy()).ravel()
    recent = recent_days(past, PAST_DAYS, of_day=24)
    rows = tree_columns(recent, known, grid=HOURLY).flatten(0, 1).numpy()
    table = lightgbm.Dataset(rows[: 700 * HORIZON], change, params=PARAMETERS)
    expected = []
    for level in LEVELS:
        booster = lightgbm.train(PARAMETERS | {"alpha": level}, table, num_boost_round=TREES)
        expected.append(np.asarray(booster.predict(rows)).reshape(WINDOWS, HORIZON))
    native = tree_quantiles(recent, known, *(torch.from_numpy(each) for each in vars(trees).values()), grid=HOURLY)
    last = past[:, -1:, None].numpy()
    np.testing.assert_allclose(native, np.sort(np.stack(expected, axis=-1) + last, axis=-1), rtol=1e-5, atol=1e-5)


def test_fit_trees__are_better_than_the_last_value_and_as_wide_as_the_noise(
    windows: tuple[torch.Tensor, torch.Tensor, np.ndarray], trees: Trees
) -> None:
    past, known, truth = (each[700:] for each in windows)
    forecast = trees.forecast(past, known)
    last = np.repeat(past[:, -1:].double().numpy(), HORIZON, axis=1)
    point = Forecasts(last, np.repeat(last[..., None], 99, axis=-1))
    assert crps(forecast, truth).mean() < 0.5 * crps(point, truth).mean()
    width = forecast.quantiles[..., 89] - forecast.quantiles[..., 9]
    afternoon = known[..., 0].numpy() > 12
    assert width[afternoon].mean() > 2 * width[~afternoon].mean()
    inside = (truth >= forecast.quantiles[..., 9]) & (truth <= forecast.quantiles[..., 89])
    assert 0.65 < inside.mean() < 0.9
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()


def test_trees__follow_a_level_that_training_did_not_hold(
    windows: tuple[torch.Tensor, torch.Tensor, np.ndarray], trees: Trees
) -> None:
    past, known, _ = windows
    # Of all columns only the last value itself tells the level: a leaf of it may differ, the forecast still follows.
    higher = trees.forecast(past[700:] + 100, known[700:]).mean - trees.forecast(past[700:], known[700:]).mean
    np.testing.assert_allclose(higher, 100, atol=2)


def test_trees__chunks_are_forecast_as_one(
    windows: tuple[torch.Tensor, torch.Tensor, np.ndarray], trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    past, known, _ = windows
    whole = trees.forecast(past[:50], known[:50])
    monkeypatch.setattr(module, "CHUNK_ROWS", 21)
    np.testing.assert_array_equal(trees.forecast(past[:50], known[:50]).quantiles, whole.quantiles)


def test_fit_trees__too_few_windows_for_a_split_give_the_quantiles_of_the_change(
    windows: tuple[torch.Tensor, torch.Tensor, np.ndarray],
) -> None:
    past, known, truth = (each[:30] for each in windows)
    forecast = fit_trees(past, known, truth).forecast(past, known)
    change = forecast.quantiles - past[:, -1, None, None].double().numpy()
    assert np.ptp(change, axis=(0, 1)).max() < 1e-5
    expected = np.quantile(truth - past[:, -1:].double().numpy(), 0.5)
    assert change[0, 0, 49] == pytest.approx(expected, abs=0.1)


def test_tree_columns__missing_hours_take_those_of_a_day_nearby(
    windows: tuple[torch.Tensor, torch.Tensor, np.ndarray],
) -> None:
    past, known, _ = windows
    gaps = past[:1].clone()
    gaps[0, :30] = torch.nan
    assert tree_columns(recent_days(gaps, PAST_DAYS, of_day=24), known[:1], grid=HOURLY).isfinite().all()


def test_rounded_down__the_same_float32_values_are_above() -> None:
    assert module._rounded_down(1e300) == np.finfo(np.float32).max
    for value in (0.1, 1 / 3, -0.7, 0.5, 1e-9):
        rounded = module._rounded_down(value)
        assert float(rounded) <= value < float(np.nextafter(rounded, np.float32(np.inf)))
