"""Forecasts as plain arrays, and the contenders that make them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
import scoringrules
from jaxtyping import Float

QUANTILE_LEVELS = tuple(round(level / 100, 2) for level in range(1, 100))
QUANTILE_NAMES = tuple(f"q{round(level * 100):02d}" for level in QUANTILE_LEVELS)
"""Columns of quantiles in tables: q01 … q99."""


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of many windows: mean (windows, horizon), quantiles (windows, horizon, levels) at QUANTILE_LEVELS."""

    mean: Float[np.ndarray, "windows horizon"]
    quantiles: Float[np.ndarray, "windows horizon levels"]

    def at(self, windows: np.ndarray) -> "Forecasts":
        """The forecasts of selected windows, by index or by mask."""
        return Forecasts(self.mean[windows], self.quantiles[windows])

    def with_quantiles(self, quantiles: Float[np.ndarray, "windows horizon levels"]) -> "Forecasts":
        """The forecasts with other quantiles; the mean moves as far as the mean of the quantiles does."""
        return Forecasts(self.mean + (quantiles - self.quantiles).mean(axis=-1), quantiles)


def crps(forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"]) -> Float[np.ndarray, "windows horizon"]:
    """Continuous ranked probability score: twice the pinball loss averaged over the 99 levels (scoringrules)."""
    return np.asarray(scoringrules.crps_quantile(actual, forecasts.quantiles, np.array(QUANTILE_LEVELS)))


def linear_interpolation(known: Sequence[float], wanted: Sequence[float]) -> Float[np.ndarray, "known wanted"]:
    """The matrix from values at ascending places to those at other places, linear between them and beyond them."""
    places, others = np.array(known), np.array(wanted)
    left, column = np.clip(np.searchsorted(places, others) - 1, 0, len(places) - 2), np.arange(len(others))
    share = (others - places[left]) / (places[left + 1] - places[left])
    matrix = np.zeros((len(places), len(others)))
    matrix[left, column] = 1 - share
    matrix[left + 1, column] = share
    return matrix


def normal_interpolation(levels: Sequence[float]) -> Float[np.ndarray, "native levels"]:
    """The matrix from ascending quantiles at these levels to those at QUANTILE_LEVELS.

    Linear in the normal score, beyond the outer levels, too.
    """
    native, wanted = ([NormalDist().inv_cdf(level) for level in each] for each in (levels, QUANTILE_LEVELS))
    return linear_interpolation(native, wanted)


def interpolated(native: Float[np.ndarray, "windows horizon native"], levels: Sequence[float]) -> Forecasts:
    """Forecasts from ascending quantiles at other levels; the mean is that of the quantiles."""
    quantiles = native.astype(np.float64) @ normal_interpolation(levels)
    return Forecasts(quantiles.mean(axis=-1), quantiles)


class Contender(StrEnum):
    """Who makes a forecast.

    student: distilled from the privileged teachers
    unprivileged: distilled from the same number of teachers that see only what a student sees
    placebo: distilled from teachers that see the privileged values of other windows
    twin: the undistilled baseline, α = 0
    untaught: a twin that learns from the windows of other sites, too, by their actual values
    chosen: the first replicate's student or twin, whichever may be registered
    pretrained: a pretrained model as it comes
    the others: simple forecasts (`tutelage.judge.baselines`) and the present champion
    """

    STUDENT = "student"
    UNPRIVILEGED = "unprivileged"
    PLACEBO = "placebo"
    TWIN = "twin"
    UNTAUGHT = "untaught"
    TEACHER = "teacher"
    SEASONAL_NAIVE_24H = "seasonal_naive_24h"
    SEASONAL_NAIVE_168H = "seasonal_naive_168h"
    LAST_VALUE = "last_value"
    MEAN_OF_SEASONS = "mean_of_seasons"
    SAME_HOUR_7D = "same_hour_7d"
    SAME_HOUR_14D = "same_hour_14d"
    SAME_HOUR_28D = "same_hour_28d"
    RIDGE = "ridge"
    BOOSTED = "boosted"
    PRETRAINED = "pretrained"
    CHAMPION = "champion"
    CHOSEN = "chosen"

    @property
    def label(self) -> str:
        """The name in tables and plots."""
        return self.value.replace("_", " ")
