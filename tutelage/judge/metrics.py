"""Scores of a forecast from its quantiles and its mean, in the target's unit (coverage: a share)."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int

from tutelage.forecasts import QUANTILE_LEVELS, Forecasts, crps

LEVELS = np.array(QUANTILE_LEVELS)


def quantile_at(forecasts: Forecasts, level: float) -> Float[np.ndarray, "windows horizon"]:
    """The quantile at a level of QUANTILE_LEVELS."""
    return forecasts.quantiles[..., int(np.argmin(np.abs(LEVELS - level)))]


@dataclass(frozen=True)
class Scores:
    """Scores of one forecaster, or the mean of several that differ only in seed.

    crps, mae (of the median), rmse (of the mean): in the target's unit
    coverage_80: share of actual values inside the central 80 % interval
    """

    crps: float
    mae: float
    rmse: float
    coverage_80: float


def score(forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"]) -> Scores:
    """The scores of a forecast over all windows and hours."""
    inside = (actual >= quantile_at(forecasts, 0.1)) & (actual <= quantile_at(forecasts, 0.9))
    return Scores(
        crps=float(crps(forecasts, actual).mean()),
        mae=float(np.abs(quantile_at(forecasts, 0.5) - actual).mean()),
        rmse=float(np.sqrt(np.square(forecasts.mean - actual).mean())),
        coverage_80=float(inside.mean()),
    )


def score_by_lead(forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"]) -> list[Scores]:
    """The scores for each lead time, the first hour first."""
    leads = [slice(lead, lead + 1) for lead in range(actual.shape[1])]
    return [score(Forecasts(forecasts.mean[:, at], forecasts.quantiles[:, at]), actual[:, at]) for at in leads]


def score_by_hour(
    forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"], hour: Int[np.ndarray, "windows horizon"]
) -> dict[int, Scores]:
    """The scores for each hour of the day that is forecast; `hour` is that of each forecast hour, 0 to 23."""
    levels = forecasts.quantiles.shape[-1]
    mean, quantiles, values = forecasts.mean.reshape(-1, 1), forecasts.quantiles.reshape(-1, 1, levels), actual.ravel()
    of_hour = {each: hour.ravel() == each for each in np.unique(hour).tolist()}
    return {each: score(Forecasts(mean[at], quantiles[at]), values[at, None]) for each, at in of_hour.items()}


def reliability(forecasts: Forecasts, actual: Float[np.ndarray, "windows horizon"]) -> Float[np.ndarray, " levels"]:
    """For each quantile level, the share of actual values at or below that quantile."""
    return (actual[..., None] <= forecasts.quantiles).mean(axis=(0, 1))


@dataclass(frozen=True)
class ScoredForecasts:
    """Detailed scores of one forecaster, or of several that differ only in seed; all except losses are means over them.

    losses: CRPS of each window, averaged over its hours
    by_lead: the scores for each lead time, the first hour first; reliability: see `metrics.reliability`
    """

    losses: Float[np.ndarray, "members windows"]
    scores: Scores
    by_lead: list[Scores]
    reliability: Float[np.ndarray, " levels"]


def score_members(members: Iterable[Forecasts], actual: Float[np.ndarray, "windows horizon"]) -> ScoredForecasts:
    """Score the forecasts of several members, one at a time, so that an iterator need not hold all in memory."""
    scored = [
        (crps(each, actual).mean(axis=1), score(each, actual), score_by_lead(each, actual), reliability(each, actual))
        for each in members
    ]
    losses, scores, by_lead, shares = zip(*scored, strict=True)
    return ScoredForecasts(
        losses=np.stack(losses),
        scores=_mean_scores(scores),
        by_lead=[_mean_scores(rows) for rows in zip(*by_lead, strict=True)],
        reliability=np.mean(shares, axis=0),
    )


def _mean_scores(rows: Sequence[Scores]) -> Scores:
    plain = [asdict(row) for row in rows]
    return Scores(**{name: float(np.mean([row[name] for row in plain])) for name in plain[0]})
