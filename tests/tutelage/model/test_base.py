import numpy as np
import pytest
import torch

from tutelage.forecasts import QUANTILE_LEVELS, Contender, Forecasts, crps
from tutelage.model.aggregation import Atom
from tutelage.model.base import LEAST_WEIGHT, find_atom, find_weights, fit_changes, quantile_weights, same_hour
from tutelage.model.days import recent_days

WINDOWS, HORIZON = 400, 3


def normal_forecast(centre: np.ndarray, spread: float) -> Forecasts:
    from statistics import NormalDist

    z = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
    return Forecasts(centre, centre[..., None] + spread * z)


def test_fit_changes__are_from_the_last_value() -> None:
    past = np.arange(10.0).reshape(5, 2)
    changes = fit_changes(past, past[:, -1:] + np.array([[1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(changes.mean, [1, 2, 3])
    np.testing.assert_allclose(changes.quantiles, np.tile([[1.0], [2.0], [3.0]], len(QUANTILE_LEVELS)))


@pytest.mark.parametrize("days", [2, 7, 28])
def test_same_hour__are_the_quantiles_of_numpy(days: int) -> None:
    past = np.random.default_rng(0).normal(size=(4, 24 * days + 5))
    mean, quantiles = same_hour(recent_days(torch.from_numpy(past), days, of_day=24), 30, quantile_weights(days))
    for lead in (0, 7, 23, 29):
        values = past[:, -24 * days :][:, lead % 24 :: 24]
        np.testing.assert_allclose(mean[:, lead], values.mean(axis=1))
        np.testing.assert_allclose(quantiles[:, lead], np.quantile(values, QUANTILE_LEVELS, axis=1).T)


def test_find_weights__the_truth_decides() -> None:
    random = np.random.default_rng(1)
    truth = random.normal(size=(WINDOWS, HORIZON))
    good, bad = normal_forecast(truth + 0.1 * random.normal(size=truth.shape), 0.1), normal_forecast(truth + 5, 0.1)
    network = normal_forecast(np.zeros_like(truth), 1.0)
    weights = find_weights(network, {Contender.RIDGE: good, Contender.LAST_VALUE: bad}, truth)
    assert weights[Contender.RIDGE] > 0.9
    assert Contender.LAST_VALUE not in weights
    alone = find_weights(good, {Contender.RIDGE: network}, truth)
    assert sum(alone.values()) < 0.1


def test_find_weights__two_that_err_on_their_own_are_averaged_and_better_than_each() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(size=(WINDOWS, HORIZON))
    first, second = (normal_forecast(truth + random.normal(size=truth.shape), 1.0) for _ in range(2))
    weights = find_weights(first, {Contender.RIDGE: second}, truth)
    assert weights[Contender.RIDGE] == pytest.approx(0.5, abs=0.1)
    mean = Forecasts(
        0.5 * first.mean + 0.5 * second.mean,
        0.5 * first.quantiles + 0.5 * second.quantiles,
    )
    assert crps(mean, truth).mean() < min(crps(each, truth).mean() for each in (first, second))


def test_find_weights__small_ones_are_left_out() -> None:
    random = np.random.default_rng(3)
    truth = random.normal(size=(WINDOWS, HORIZON))
    names = (Contender.RIDGE, Contender.LAST_VALUE, Contender.SAME_HOUR_7D, Contender.SAME_HOUR_14D)
    simple = {name: normal_forecast(truth + random.normal(size=truth.shape), 1.0) for name in names}
    weights = find_weights(normal_forecast(truth * 0, 3.0), simple, truth)
    assert all(weight >= LEAST_WEIGHT for weight in weights.values())
    assert sum(weights.values()) <= 1 + 1e-9


def test_find_weights__of_many_windows_all_hours_of_the_day_count() -> None:
    """One forecaster is right in one hour of the day, the other in all others."""
    hour = np.arange(24 * 600) % 24
    truth = np.random.default_rng(4).normal(size=(len(hour), 1))
    at_night = normal_forecast(truth + np.where(hour == 0, 0.0, 3.0)[:, None], 0.2)
    by_day = normal_forecast(truth + np.where(hour == 0, 3.0, 0.0)[:, None], 0.2)
    assert find_weights(at_night, {Contender.RIDGE: by_day}, truth)[Contender.RIDGE] > 0.9


def test_find_weights__without_simple_forecasts_the_network_has_all() -> None:
    truth = np.zeros((5, HORIZON))
    assert find_weights(normal_forecast(truth, 1.0), {}, truth) == {}


def at_night(random: np.random.Generator) -> np.ndarray:
    """A target that is 0 in half of the windows."""
    return np.where(np.arange(WINDOWS)[:, None] % 2, 0.0, 3 + random.normal(size=(WINDOWS, HORIZON)).clip(-2))


def test_find_atom__quantiles_near_a_value_that_is_often_taken_become_it() -> None:
    truth = at_night(np.random.default_rng(5))
    forecasts = normal_forecast(np.where(truth == 0, 0.02, 3.0), 1.0)
    blurred = Forecasts(
        forecasts.mean, np.where(truth[..., None] == 0, 0.02 + 0.02 * forecasts.quantiles, forecasts.quantiles)
    )
    atom = find_atom(blurred, truth)
    assert atom is not None
    assert atom.value == 0
    settled = atom.settle(blurred)
    assert (settled.quantiles[truth == 0] == 0).all()
    assert crps(settled, truth).mean() < crps(blurred, truth).mean()
    np.testing.assert_allclose(settled.mean[truth == 0], 0, atol=0.03)
    assert (np.diff(settled.quantiles, axis=-1) >= 0).all()


def test_find_atom__where_no_value_is_often_taken_there_is_none() -> None:
    truth = np.random.default_rng(6).normal(size=(WINDOWS, HORIZON))
    assert find_atom(normal_forecast(truth, 1.0), truth) is None
    assert find_atom(normal_forecast(truth * 0, 1.0), truth * 0) is None


def test_atom__below_its_value_nothing_is_forecast() -> None:
    truth = at_night(np.random.default_rng(7))
    settled = Atom(0.0, 0.0).settle(normal_forecast(np.full_like(truth, 0.5), 1.0))
    assert settled.quantiles.min() == 0
    assert (settled.quantiles == 0).mean() == pytest.approx(0.3, abs=0.02)
