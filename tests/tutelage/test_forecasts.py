from statistics import NormalDist

import numpy as np

from tutelage.forecasts import QUANTILE_LEVELS, QUANTILE_NAMES, Contender, Forecasts, normal_interpolation


def test_quantile_names__are_those_of_the_levels() -> None:
    assert len(QUANTILE_NAMES) == len(QUANTILE_LEVELS) == 99
    assert (QUANTILE_NAMES[0], QUANTILE_NAMES[49], QUANTILE_NAMES[98]) == ("q01", "q50", "q99")


def test_forecasts__at_chooses_windows_by_index_or_mask() -> None:
    mean = np.arange(6.0).reshape(3, 2)
    forecasts = Forecasts(mean, np.repeat(mean[..., None], 99, axis=-1))
    for windows in (np.array([0, 2]), np.array([True, False, True])):
        chosen = forecasts.at(windows)
        assert chosen.mean.tolist() == [[0.0, 1.0], [4.0, 5.0]]
        assert chosen.quantiles[:, :, 50].tolist() == chosen.mean.tolist()


def test_contender__has_a_label_without_underscores() -> None:
    assert Contender.SEASONAL_NAIVE_24H.label == "seasonal naive 24h"
    assert f"{Contender.UNPRIVILEGED}" == "unprivileged"


def test_normal_interpolation__of_a_normal_distribution_is_exact() -> None:
    levels, normal = (0.1, 0.5, 0.9), NormalDist(2, 3)
    native = np.array([normal.inv_cdf(level) for level in levels])
    expected = [normal.inv_cdf(level) for level in QUANTILE_LEVELS]
    np.testing.assert_allclose(native @ normal_interpolation(levels), expected)
