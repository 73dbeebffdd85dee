"""The figures of a forecast, all from its quantiles and its mean, all in the target's unit (coverage: a share)."""

from dataclasses import dataclass

import numpy as np
import scoringrules
from jaxtyping import Float

from tutelage.heads import QUANTILE_LEVELS

LEVELS = np.array(QUANTILE_LEVELS)


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of many windows: mean (windows, horizon), quantiles (windows, horizon, levels) at QUANTILE_LEVELS."""

    mean: Float[np.ndarray, "windows horizon"]
    quantiles: Float[np.ndarray, "windows horizon levels"]


def crps(forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"]) -> Float[np.ndarray, "windows horizon"]:
    """Continuous ranked probability score: twice the pinball loss averaged over the 99 levels (scoringrules)."""
    return np.asarray(scoringrules.crps_quantile(actual, forecasts.quantiles, LEVELS))


def _at(forecasts: Forecasts, level: float) -> Float[np.ndarray, "windows horizon"]:
    return forecasts.quantiles[..., int(np.argmin(np.abs(LEVELS - level)))]


def score(forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"]) -> dict[str, float]:
    """CRPS, MAE of the median, RMSE of the mean, and the share of the truth inside the central 80 % interval."""
    inside = (actual >= _at(forecasts, 0.1)) & (actual <= _at(forecasts, 0.9))
    return {
        "crps": float(crps(forecasts, actual).mean()),
        "mae": float(np.abs(_at(forecasts, 0.5) - actual).mean()),
        "rmse": float(np.sqrt(np.square(forecasts.mean - actual).mean())),
        "coverage_80": float(inside.mean()),
    }


def score_by_lead(forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"]) -> list[dict[str, float]]:
    """The same figures for each lead time, the first hour first."""
    return [
        {"lead_hours": lead + 1, **score(_one_lead(forecasts, lead), actual[:, lead : lead + 1])}
        for lead in range(actual.shape[1])
    ]


def _one_lead(forecasts: Forecasts, lead: int) -> Forecasts:
    return Forecasts(forecasts.mean[:, lead : lead + 1], forecasts.quantiles[:, lead : lead + 1])


def reliability(forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"]) -> Float[np.ndarray, " levels"]:
    """For each quantile level, the share of the truth at or below that quantile."""
    return (actual[..., None] <= forecasts.quantiles).mean(axis=(0, 1))
