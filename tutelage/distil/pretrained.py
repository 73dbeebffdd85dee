"""Pretrained models as teachers: forecasts of a model that was trained on other people's data, as it comes.

A model may have seen a public dataset in its training; results on it say so.
"""

import importlib
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tutelage.data.windows import gather_long_past
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import ForecastFunction
from tutelage.errors import TutelageError
from tutelage.forecasts import Forecasts, normal_interpolation
from tutelage.model.kinds import Pretrained

INSTALL = {"fracast": "pip install --no-deps fracast==0.1.0 safetensors"}
"""How to install each model. fracast declares a hub client that it does not need for the weights in its wheel."""
CONTEXT_HOURS = 672
CHUNK_WINDOWS = 16
"""Windows per call: larger batches leave the cache, and take twice the time."""


def load_pretrained(name: Pretrained) -> ForecastFunction:
    """A pretrained model as a forecast function. A window that it has forecast is not computed again.

    Raises TutelageError where its package is not installed.
    """
    model = _fracast()
    known: dict[int, np.ndarray] = {}

    def forecast(dataset: WindowDataset, origins: Tensor) -> Forecasts:
        if dataset.horizon > model.horizon:
            raise TutelageError(f"{name} forecasts up to {model.horizon} h, not {dataset.horizon} h")
        fresh = torch.tensor([origin for origin in origins.tolist() if origin not in known], dtype=torch.int64)
        for part in fresh.split(CHUNK_WINDOWS) if len(fresh) else ():
            native = model.forecast_batch(_contexts(dataset, part))
            known.update(zip(part.tolist(), native.astype(np.float32), strict=True))
        native = np.stack([known[origin] for origin in origins.tolist()])[:, : dataset.horizon]
        quantiles = np.sort(native.astype(np.float64), axis=-1) @ normal_interpolation(model.quantiles)
        return Forecasts(quantiles.mean(axis=-1), quantiles)

    return forecast


@cache
def _fracast() -> Any:
    try:
        module = importlib.import_module("fracast")
    except ImportError:
        raise TutelageError(f"the pretrained model fracast is not installed: {INSTALL['fracast']}") from None
    return module.FracastModel.from_pretrained(weights="fp32")


def _contexts(dataset: WindowDataset, origins: Tensor) -> Float[np.ndarray, "windows hours"]:
    """The target's past of each window, NaN where there is none; that of other sites may begin before the history."""
    panel, rows = dataset.panel, origins.to(dataset.panel.hour.device)
    here = panel.series[rows] == panel.series[dataset.train[0]]
    of_site = gather_long_past(panel, rows, CONTEXT_HOURS, first_hour=dataset.first_hour, complete=0)[..., 0]
    of_others = gather_long_past(panel, rows, CONTEXT_HOURS, first_hour=0, complete=0)[..., 0]
    return torch.where(here[:, None], of_site, of_others).cpu().numpy()
