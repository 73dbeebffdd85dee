"""Pretrained models as teachers: forecasts of a model that was trained on other people's data, as it comes.

A model may have seen a public dataset in its training; results on it say so.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tutelage.data.grid import HOUR
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import ForecastFunction
from tutelage.errors import TutelageError
from tutelage.forecasts import Forecasts, interpolated
from tutelage.model.kinds import PRETRAINED_HOURS, Pretrained
from tutelage.model.pretrained import CONTEXT_DAYS, pretrained_network


def load_pretrained(name: Pretrained) -> ForecastFunction:
    """A pretrained model as a forecast function. A window that it has forecast is not computed again.

    Raises TutelageError where its package is not installed.
    """
    model = pretrained_network(name)
    known: dict[int, np.ndarray] = {}

    def forecast(dataset: WindowDataset, origins: Tensor) -> Forecasts:
        if dataset.panel.grid.step != HOUR:
            raise TutelageError(f"{name} forecasts hours, not steps of {dataset.panel.grid.name}")
        if dataset.horizon > PRETRAINED_HOURS[name]:
            raise TutelageError(f"{name} forecasts up to {PRETRAINED_HOURS[name]} h, not {dataset.horizon} h")
        fresh = torch.tensor([origin for origin in origins.tolist() if origin not in known], dtype=torch.int64)
        if len(fresh):
            native = model.in_chunks(_context(dataset, fresh)).numpy()
            known.update(zip(fresh.tolist(), native, strict=True))
        native = np.stack([known[origin] for origin in origins.tolist()])[:, : dataset.horizon]
        return interpolated(native, model.levels)

    return forecast


def _context(dataset: WindowDataset, origins: Tensor) -> Float[Tensor, "windows hours"]:
    """The target's past of each window, NaN where there is none."""
    hours = dataset.panel.grid.of_day * CONTEXT_DAYS
    return dataset.long_past(origins.to(dataset.panel.step.device), hours, complete=0)[..., 0].cpu()
