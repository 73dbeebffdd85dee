"""Simple forecasts as a teacher: their mean, so that one student can carry a mixed ensemble.

Boosted trees know the windows that they were fitted on by heart. So the windows of the training part are forecast by
what was fitted on other blocks of it.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tutelage.distil.base import fit_base, forecast_simple
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import ForecastFunction
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts

FOLDS = 5
"""Number of blocks of the training part, each forecast by what was fitted on the others."""


def fit_simple_teacher(dataset: WindowDataset) -> ForecastFunction:
    """The equal mean of the simple forecasts, quantile by quantile, fitted on the training part.

    Raises GapsError where there are too few windows for blocks.
    """
    folds = replace(dataset, validation=dataset.train[:0], unlabelled=dataset.train[:0]).blocks(FOLDS)
    bases = [*(fit_base(fold) for fold in folds), fit_base(dataset)]
    base_of = torch.full((len(dataset.panel.step),), FOLDS, dtype=torch.int64, device=dataset.panel.step.device)
    for number, fold in enumerate(folds):
        base_of[fold.validation] = number

    def forecast(windows: WindowDataset, origins: Tensor) -> Forecasts:
        mean = np.empty((len(origins), windows.horizon))
        quantiles = np.empty((*mean.shape, len(QUANTILE_LEVELS)))
        numbers = base_of[origins]
        for number in numbers.unique().tolist():
            rows = torch.nonzero(numbers == number).squeeze(-1)
            simple = forecast_simple(bases[number], windows, origins[rows]).values()
            chosen = rows.cpu().numpy()
            mean[chosen] = np.mean([each.mean for each in simple], axis=0)
            quantiles[chosen] = np.mean([each.quantiles for each in simple], axis=0)
        return Forecasts(mean, quantiles)

    return forecast
