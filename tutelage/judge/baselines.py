"""Seasonal naive as a distribution: the value one season before, with the distribution of its training errors."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.data.windows import Panel
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts


def _season_before(panel: Panel, origins: Tensor, horizon: int, season: int) -> Float[np.ndarray, "windows horizon"]:
    """The target `season` hours before each target hour; NaN where it is missing or from another series."""
    rows = origins[:, None] + torch.arange(horizon, device=origins.device) - season
    value = panel.observed[rows.clamp(min=0), 0]
    same = (rows >= 0) & (panel.series[rows.clamp(min=0)] == panel.series[origins][:, None])
    return torch.where(same, value, torch.nan).cpu().numpy()


def seasonal_naive(
    panel: Panel,
    train: Int64[Tensor, " train"],
    origins: Int64[Tensor, " windows"],
    *,
    horizon: int,
    season: int,
) -> Forecasts:
    """Forecast each hour by the value `season` hours before, with the quantiles of the errors in the training part.

    The quantiles are computed by lead time. A missing value is replaced by the next earlier season, up to four back.

    Raises ValueError where the season is shorter than the horizon: its values would not be known at issue time.
    """
    if season < horizon:
        raise ValueError(f"a season of {season} h is not known {horizon} h ahead")

    def point(rows: Tensor) -> Float[np.ndarray, "windows horizon"]:
        value = _season_before(panel, rows, horizon, season)
        for back in (2, 3, 4):
            value = np.where(np.isnan(value), _season_before(panel, rows, horizon, back * season), value)
        return value

    def truth(rows: Tensor) -> Float[np.ndarray, "windows horizon"]:
        return panel.observed[rows[:, None] + torch.arange(horizon, device=rows.device), 0].cpu().numpy()

    errors = truth(train) - point(train)
    # Without any error, in a training part shorter than a season, use the deviations from its mean.
    lacking = np.isnan(errors).all(axis=0)
    errors = np.where(lacking, truth(train) - np.nanmean(truth(train)), errors)
    spread = np.nanquantile(errors, QUANTILE_LEVELS, axis=0).T
    value = point(origins)
    # A window without any earlier season gets the training part's mean.
    value = np.where(np.isnan(value), np.nanmean(truth(train)), value)
    quantiles = (value[..., None] + spread).astype(np.float64)
    return Forecasts(mean=value + np.nanmean(errors, axis=0), quantiles=quantiles)
