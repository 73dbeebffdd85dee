"""Simple forecasts that anybody could use instead, each as a distribution: the floor that a forecaster must beat.

Each sees what is known at issue time. Its spread are its errors' quantiles in the training part; ridge regression,
which has nothing to stop early by, is fitted on training and validation part.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.data.windows import Panel
from tutelage.distil.base import fit_linear_on, linear_inputs
from tutelage.distil.dataset import WindowDataset
from tutelage.forecasts import QUANTILE_LEVELS, Contender, Forecasts
from tutelage.model.base import SAME_HOUR_DAYS

SEASONS_DAYS = {Contender.SEASONAL_NAIVE_24H: 1, Contender.SEASONAL_NAIVE_168H: 7}
BASELINES = (Contender.LAST_VALUE, *SEASONS_DAYS, Contender.MEAN_OF_SEASONS, *SAME_HOUR_DAYS, Contender.RIDGE)

Train = Int64[Tensor, " train"]
Origins = Int64[Tensor, " windows"]
Values = Float[np.ndarray, "windows horizon"]
Point = Callable[[Origins], Values]


def _season_before(panel: Panel, origins: Tensor, horizon: int, season: int) -> Values:
    """The target `season` steps before each target step; NaN where it is missing or from another series."""
    rows = origins[:, None] + torch.arange(horizon, device=origins.device) - season
    value = panel.observed[rows.clamp(min=0), 0]
    same = (rows >= 0) & (panel.series[rows.clamp(min=0)] == panel.series[origins][:, None])
    return torch.where(same, value, torch.nan).cpu().numpy()


def _seasonal(panel: Panel, origins: Tensor, horizon: int, season: int) -> Values:
    """The same; a missing value is replaced by the next earlier season, up to four back."""
    value = _season_before(panel, origins, horizon, season)
    for back in (2, 3, 4):
        value = np.where(np.isnan(value), _season_before(panel, origins, horizon, back * season), value)
    return value


def _require_season(season: int, horizon: int) -> None:
    if season < horizon:
        raise ValueError(f"a season of {season} steps is not known {horizon} steps ahead")


def _with_errors(panel: Panel, train: Tensor, origins: Tensor, horizon: int, point: Point) -> Forecasts:
    """A point forecast with the quantiles, by lead time, of its errors in the training part."""

    def truth(rows: Tensor) -> Values:
        return panel.observed[rows[:, None] + torch.arange(horizon, device=rows.device), 0].cpu().numpy()

    errors = truth(train) - point(train)
    # Without any error, in a training part shorter than a season, use the deviations from its mean.
    lacking = np.isnan(errors).all(axis=0)
    errors = np.where(lacking, truth(train) - np.nanmean(truth(train)), errors)
    spread = np.nanquantile(errors, QUANTILE_LEVELS, axis=0).T
    value = point(origins)
    # A window without any earlier value gets the training part's mean.
    value = np.where(np.isnan(value), np.nanmean(truth(train)), value)
    quantiles = (value[..., None] + spread).astype(np.float64)
    return Forecasts(mean=value + np.nanmean(errors, axis=0), quantiles=quantiles)


def seasonal_naive(panel: Panel, train: Train, origins: Origins, *, horizon: int, season: int) -> Forecasts:
    """Forecast each step by the value `season` steps before, with the quantiles of the errors in the training part.

    The quantiles are computed by lead time. A missing value is replaced by the next earlier season, up to four back.

    Raises ValueError where the season is shorter than the horizon: its values would not be known at issue time.
    """
    _require_season(season, horizon)
    return _with_errors(panel, train, origins, horizon, lambda rows: _seasonal(panel, rows, horizon, season))


def mean_of_seasons(panel: Panel, train: Train, origins: Origins, *, horizon: int) -> Forecasts:
    """Forecast each step by the mean of the values a day and a week before; where one is missing, by the other.

    Raises ValueError where the horizon is longer than a day.
    """
    seasons = tuple(days * panel.grid.of_day for days in SEASONS_DAYS.values())
    _require_season(min(seasons), horizon)

    def point(rows: Tensor) -> Values:
        day, week = (_seasonal(panel, rows, horizon, season) for season in seasons)
        return np.where(np.isnan(day), week, np.where(np.isnan(week), day, (day + week) / 2))

    return _with_errors(panel, train, origins, horizon, point)


def last_value(panel: Panel, train: Train, origins: Origins, *, horizon: int) -> Forecasts:
    """Forecast all steps by the last one before the issue time, with its errors in the training part."""

    def point(rows: Tensor) -> Values:
        return panel.seen[rows - 1, 0].cpu().numpy()[:, None].repeat(horizon, axis=1)

    return _with_errors(panel, train, origins, horizon, point)


def same_hour(panel: Panel, train: Train, origins: Origins, *, horizon: int, days: int) -> Forecasts:
    """Forecast each step by the quantiles of the same step on the last `days` days that are known at issue time.

    A window without any of these values gets the quantiles of the training part's target.
    """
    target = panel.observed[train, 0].cpu().numpy()
    everything = np.nanquantile(target, QUANTILE_LEVELS)
    levels = torch.tensor(QUANTILE_LEVELS, dtype=torch.float64)
    means, quantiles, of_day = [], [], panel.grid.of_day
    for lead in range(horizon):
        known_days = range(1 + lead // of_day, 1 + lead // of_day + days)
        values = np.stack([_season_before(panel, origins + lead, 1, of_day * day)[:, 0] for day in known_days], axis=1)
        lacking = np.isnan(values).all(axis=1)
        values[lacking] = np.nanmean(target)
        # Not numpy's nanquantile, which takes the windows one by one.
        quantiles.append(torch.from_numpy(values).double().nanquantile(levels, dim=1).T.numpy())
        quantiles[-1][lacking] = everything
        means.append(np.nanmean(values, axis=1))
    return Forecasts(np.stack(means, axis=1).astype(np.float64), np.stack(quantiles, axis=1).astype(np.float64))


def ridge(dataset: WindowDataset, origins: Origins) -> Forecasts:
    """Ridge regression by lead time on what the student sees, fitted on training and validation part."""
    model = fit_linear_on(dataset, torch.cat([dataset.train, dataset.validation]))
    return model.forecast(*linear_inputs(dataset, origins))


def forecast_baselines(
    dataset: WindowDataset, origins: Origins, names: Iterable[Contender] = BASELINES
) -> dict[Contender, Forecasts]:
    """The baselines' forecasts of windows; those whose season a horizon is too long for are left out."""
    panel, train, horizon = dataset.panel, dataset.train, dataset.horizon
    of_day = panel.grid.of_day
    forecasts = {}
    for name in names:
        if name in SEASONS_DAYS:
            if (season := SEASONS_DAYS[name] * of_day) >= horizon:
                forecasts[name] = seasonal_naive(panel, train, origins, horizon=horizon, season=season)
        elif name in SAME_HOUR_DAYS:
            forecasts[name] = same_hour(panel, train, origins, horizon=horizon, days=SAME_HOUR_DAYS[name])
        elif name is Contender.MEAN_OF_SEASONS and horizon <= of_day:
            forecasts[name] = mean_of_seasons(panel, train, origins, horizon=horizon)
        elif name is Contender.LAST_VALUE:
            forecasts[name] = last_value(panel, train, origins, horizon=horizon)
        elif name is Contender.RIDGE:
            forecasts[name] = ridge(dataset, origins)
    return forecasts
