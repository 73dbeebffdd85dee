"""The figures of a forecast, all from its quantiles and its mean, all in the target's unit (coverage: a share)."""

from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True)
class Figures:
    """What is told of one forecaster, or of several that differ in their seed alone: then all but losses are means.

    losses: CRPS of each window, the mean over its hours
    by_lead: the scores for each lead time, the first hour first; reliability: as of the function of that name
    """

    losses: Float[np.ndarray, "members windows"]
    scores: dict[str, float]
    by_lead: list[dict[str, float]]
    reliability: Float[np.ndarray, " levels"]


def figures_of(members: Iterable[Forecasts], actual: Float[np.ndarray, "windows horizon"]) -> Figures:
    """Judge the forecasts of some members, one after the other: an iterator need not hold them all."""
    alone = [
        (crps(own, actual).mean(axis=1), score(own, actual), score_by_lead(own, actual), reliability(own, actual))
        for own in members
    ]
    losses, scores, by_lead, shares = zip(*alone, strict=True)
    return Figures(
        losses=np.stack(losses),
        scores=_mean_of(scores),
        by_lead=[_mean_of(rows) for rows in zip(*by_lead, strict=True)],
        reliability=np.mean(shares, axis=0),
    )


def _mean_of(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: type(value)(np.mean([row[name] for row in rows])) for name, value in rows[0].items()}
