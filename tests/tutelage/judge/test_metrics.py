from statistics import NormalDist

import numpy as np
import pytest
import scoringrules

from tutelage.forecasts import QUANTILE_LEVELS, Forecasts, crps
from tutelage.judge.metrics import quantile_at, reliability, score, score_by_hour, score_by_lead, score_members

STANDARD = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])


def normal(mean: np.ndarray, std: float = 1.0) -> Forecasts:
    return Forecasts(mean=mean, quantiles=mean[..., None] + std * STANDARD)


def point(value: np.ndarray) -> Forecasts:
    return Forecasts(mean=value, quantiles=np.repeat(value[..., None], 99, axis=-1))


def test_crps__of_a_point_is_its_absolute_error() -> None:
    forecast, actual = np.array([[1.0, 2.0], [5.0, -1.0]]), np.array([[4.0, 2.0], [3.5, 0.0]])
    np.testing.assert_allclose(crps(point(forecast), actual), [[3.0, 0.0], [1.5, 1.0]], atol=1e-12)


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_crps__of_a_normal_is_its_closed_form(std: float) -> None:
    mean, actual = np.linspace(-1, 1, 6).reshape(3, 2), np.array([[0.0, 1.0], [-0.3, 0.2], [0.5, 2.0]])
    expected = scoringrules.crps_normal(actual, mean, std)
    np.testing.assert_allclose(crps(normal(mean, std), actual), expected, rtol=0.03)


def test_score__golden() -> None:
    # The median is 0, the central 80 % reach from -1.2816 to 1.2816; the mean differs from the median.
    forecast = Forecasts(mean=np.full((5, 1), 1.0), quantiles=np.tile(STANDARD, (5, 1, 1)))
    actual = np.array([[-1.29], [-1.28], [0.0], [1.28], [4.0]])
    scores = score(forecast, actual)
    assert scores.coverage_80 == 3 / 5
    assert scores.mae == pytest.approx((1.29 + 1.28 + 0 + 1.28 + 4) / 5)
    assert scores.rmse == pytest.approx(((2.29**2 + 2.28**2 + 1 + 0.28**2 + 9) / 5) ** 0.5)
    assert scores.crps == pytest.approx(crps(forecast, actual).mean())


def test_score_by_lead__is_the_score_of_each_lead() -> None:
    noise = np.random.default_rng(0)
    actual = noise.normal(size=(40, 3)) * [1, 2, 3]
    forecast = normal(np.zeros((40, 3)))
    by_lead = score_by_lead(forecast, actual)
    assert by_lead == [score(normal(np.zeros((40, 1))), actual[:, lead : lead + 1]) for lead in range(3)]
    whole = score(forecast, actual)
    for name in ("crps", "mae", "coverage_80"):
        assert np.mean([getattr(scores, name) for scores in by_lead]) == pytest.approx(getattr(whole, name))


def test_score_by_hour__is_the_score_of_the_windows_hours_at_each_hour_of_the_day() -> None:
    actual = np.random.default_rng(0).normal(size=(40, 3))
    forecast = normal(np.zeros((40, 3)))
    hour = (np.arange(40)[:, None] + np.arange(3)) % 24
    hour[hour == 5] = 6  # an hour that never comes
    by_hour = score_by_hour(forecast, actual, hour)
    assert list(by_hour) == [each for each in range(24) if each != 5]
    at = hour == 7
    alone = normal(np.zeros((int(at.sum()), 1)))
    assert by_hour[7] == score(alone, actual[at][:, None])
    assert by_hour[7].crps != by_hour[8].crps


def test_reliability__of_the_true_distribution_is_the_diagonal() -> None:
    actual = np.random.default_rng(0).normal(size=(3000, 2))
    np.testing.assert_allclose(reliability(normal(np.zeros((3000, 2))), actual), QUANTILE_LEVELS, atol=0.02)


def test_reliability__counts_a_truth_that_equals_the_quantile() -> None:
    shares = reliability(point(np.array([[1.0], [1.0], [1.0], [1.0]])), np.array([[0.0], [1.0], [2.0], [3.0]]))
    assert shares.tolist() == [0.5] * 99


def test_quantile_at__is_the_quantile_of_the_level() -> None:
    forecast = normal(np.zeros((2, 3)))
    for level in (0.01, 0.1, 0.5, 0.9, 0.99):
        np.testing.assert_allclose(quantile_at(forecast, level), NormalDist().inv_cdf(level), atol=1e-12)


def test_score_members__are_means_over_members_and_losses_are_not() -> None:
    noise = np.random.default_rng(0)
    actual = noise.normal(size=(40, 3))
    members = [normal(noise.normal(size=(40, 3)), std) for std in (0.5, 1.0, 2.0)]
    scored = score_members(iter(members), actual)
    np.testing.assert_allclose(scored.losses, [crps(member, actual).mean(axis=1) for member in members])
    assert scored.scores.crps == pytest.approx(scored.losses.mean())
    assert scored.scores.rmse == pytest.approx(np.mean([score(member, actual).rmse for member in members]))
    assert len(scored.by_lead) == 3
    assert scored.by_lead[1].mae == pytest.approx(np.mean([score_by_lead(m, actual)[1].mae for m in members]))
    np.testing.assert_allclose(scored.reliability, np.mean([reliability(m, actual) for m in members], axis=0))


def test_score_members__of_one_member_are_its_scores() -> None:
    actual = np.array([[0.3, -1.0], [0.0, 2.0]])
    only = normal(np.zeros((2, 2)))
    scored = score_members([only], actual)
    assert scored.scores == score(only, actual)
    assert scored.by_lead == score_by_lead(only, actual)
