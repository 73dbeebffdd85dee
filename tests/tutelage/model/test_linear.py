import numpy as np
import pytest

from tutelage.errors import GapsError
from tutelage.forecasts import QUANTILE_LEVELS
from tutelage.model.linear import BLOCKS, LinearForecaster, _blocks, fit_linear

LOOKBACK, HORIZON, HOURS = 48, 3, 1200
MEDIAN, LOW, HIGH = (QUANTILE_LEVELS.index(level) for level in (0.5, 0.1, 0.9))


def series(noise: float = 0.1, *, noisy_hour: int | None = None, seed: int = 0) -> np.ndarray:
    """Half of yesterday's value of the same hour, a daily wave and noise, ten times as much at one hour of the day."""
    random = np.random.default_rng(seed)
    values = np.zeros(HOURS)
    for hour in range(HOURS):
        size = 10 * noise if noisy_hour is not None and hour % 24 == noisy_hour else noise
        before = values[hour - 24] if hour >= 24 else 0.0
        values[hour] = 0.5 * before + np.sin(2 * np.pi * hour / 24) + size * random.normal()
    return values


def windows(values: np.ndarray, origins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Past, known, truth and issue hour of windows."""
    ahead = origins[:, None] + np.arange(HORIZON)
    known = np.stack([ahead % 24, (ahead // 24) % 7, np.zeros_like(ahead)], axis=-1).astype(float)
    return values[origins[:, None] + np.arange(-LOOKBACK, 0)], known, values[ahead], origins


TRAIN, TEST = np.arange(LOOKBACK, 900), np.arange(950, HOURS - HORIZON)


def fitted(values: np.ndarray, origins: np.ndarray = TRAIN) -> LinearForecaster:
    return fit_linear(*windows(values, origins))


def test_forecast__follows_a_linear_series() -> None:
    values = series(noise=0.01)
    past, known, truth, _ = windows(values, TEST)
    forecast = fitted(values).forecast(past, known)
    assert np.abs(forecast.mean - truth).mean() < 0.02
    assert forecast.quantiles.shape == (len(TEST), HORIZON, 99)
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()


def test_forecast__its_intervals_hold_what_they_promise_on_new_data() -> None:
    shares = []
    for seed in range(5):
        values = series(seed=seed)
        past, known, truth, _ = windows(values, TEST)
        quantiles = fitted(values).forecast(past, known).quantiles
        shares.append(((truth >= quantiles[..., LOW]) & (truth <= quantiles[..., HIGH])).mean())
    assert 0.76 < np.mean(shares) < 0.84


def test_forecast__is_wider_at_an_hour_that_is_less_certain() -> None:
    values = series(noisy_hour=12)
    past, known, _, _ = windows(values, TEST)
    forecast = fitted(values).forecast(past, known)
    width = (forecast.quantiles[..., HIGH] - forecast.quantiles[..., LOW])[:, 0]
    hour = known[:, 0, 0]
    assert width[hour == 12].mean() > 3 * width[hour == 3].mean()


def test_forecast__is_no_wider_in_a_season_that_training_did_not_hold() -> None:
    """Spread that grows with the level: its logarithm is a line in the level, and its exponential has no bound."""
    random, hour = np.random.default_rng(0), np.arange(HOURS)
    level = 1 + np.sin(2 * np.pi * hour / 24) / 2 + hour / HOURS
    values = level + random.normal(size=HOURS) * np.exp(3 * level - 8)
    model = fitted(values)
    past, known, truth, _ = windows(values, TRAIN)
    seen = model.forecast(past, known)
    errors = np.abs(truth - seen.mean).max()
    past, known, _, _ = windows(10 * values, TEST)
    beyond = model.forecast(past, known)
    spread = beyond.quantiles - beyond.mean[..., None]
    assert np.abs(spread).max() < 10 * errors
    assert np.abs(beyond.mean).max() > 5, "the mean follows the level"


def test_forecast__sees_the_past_and_the_clock_and_nothing_else() -> None:
    values = series()
    model = fitted(values)
    past, known, _, _ = windows(values, TEST)
    longer = np.concatenate([np.full((len(TEST), 24), 1e6), past], axis=1)[:, 24:]
    assert np.array_equal(model.forecast(longer, known).mean, model.forecast(past, known).mean)


def test_fit_linear__does_not_depend_on_the_order_of_the_windows() -> None:
    values = series()
    past, known, _, _ = windows(values, TEST)
    expected = fitted(values).forecast(past, known)
    shuffled = fitted(values, np.random.default_rng(0).permutation(TRAIN)).forecast(past, known)
    np.testing.assert_allclose(shuffled.quantiles, expected.quantiles, rtol=1e-6, atol=1e-8)


def test_fit_linear__known_columns_are_regressors() -> None:
    random = np.random.default_rng(0)
    plan = random.normal(size=HOURS)
    values = plan + 0.01 * random.normal(size=HOURS)

    def planned(origins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        past, known, truth, hour = windows(values, origins)
        return (
            past,
            np.concatenate([known, plan[origins[:, None] + np.arange(HORIZON)][..., None]], axis=-1),
            truth,
            hour,
        )

    model = fit_linear(*planned(TRAIN))
    past, known, truth, _ = planned(TEST)
    assert np.abs(model.forecast(past, known).mean - truth).mean() < 0.05


@pytest.mark.parametrize("lookback", [1, 5, 24, 30])
def test_fit_linear__takes_short_lookbacks(lookback: int) -> None:
    past, known, truth, hour = windows(series(), TRAIN)
    model = fit_linear(past[:, -lookback:], known, truth, hour)
    assert np.isfinite(model.forecast(past[:, -lookback:], known).quantiles).all()


def test_blocks__share_no_target_hour_with_what_they_are_predicted_from() -> None:
    hours = np.concatenate([np.arange(100), np.arange(150, 300)])
    masks = _blocks(hours, gap=24)
    assert len(masks) == BLOCKS
    assert np.sum([inside for inside, _ in masks], axis=0).tolist() == [1] * len(hours)
    for inside, outside in masks:
        distance = np.abs(hours[outside][:, None] - hours[inside][None]).min()
        assert distance >= 24


def test_fit_linear__refuses_too_few_windows() -> None:
    with pytest.raises(GapsError, match="4 windows are too few for 5 blocks that share no target hour"):
        fit_linear(*windows(series(), np.arange(LOOKBACK, LOOKBACK + 4)))
