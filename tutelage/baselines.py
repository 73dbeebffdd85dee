"""Seasonal naive as a distribution: the value one season before, with the spread that it missed by in training."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.heads import QUANTILE_LEVELS
from tutelage.metrics import Forecasts
from tutelage.windows import Panel


def _season_before(panel: Panel, origins: Tensor, horizon: int, season: int) -> Float[np.ndarray, "windows horizon"]:
    """The target `season` hours before each target hour; NaN where it is missing or not yet known at issue time."""
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
    """Forecast each hour by the one `season` hours before it, with the quantiles of its misses in the training part.

    The misses are taken lead by lead. Where the earlier value is missing, the next season back stands in, up to four.

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

    missed = truth(train) - point(train)
    never = np.isnan(missed).all(axis=0)  # a training part shorter than a season: its spread about its mean stands in
    missed = np.where(never, truth(train) - np.nanmean(truth(train)), missed)
    spread = np.nanquantile(missed, QUANTILE_LEVELS, axis=0).T
    value = point(origins)
    # A test window without any earlier season falls back on the training part's mean: rare, and never to its gain.
    value = np.where(np.isnan(value), np.nanmean(truth(train)), value)
    quantiles = (value[..., None] + spread).astype(np.float64)
    return Forecasts(mean=value + np.nanmean(missed, axis=0), quantiles=quantiles)
