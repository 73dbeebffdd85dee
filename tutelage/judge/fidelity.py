"""Fidelity of an export: the graph that is registered forecasts what the evaluated network does."""

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from tutelage.data.windows import spread_step
from tutelage.distil.base import forecast_with_base
from tutelage.distil.dataset import WindowDataset
from tutelage.errors import ExportError
from tutelage.forecasts import Forecasts
from tutelage.model.base import Base
from tutelage.model.networks import Forecaster, select_members

MOST_WINDOWS = 100
TOLERANCE = 1e-4
"""Mean difference of the quantiles, in standard deviations of the target: single precision stays far below it."""


def compared(windows: int) -> slice:
    """Which of a number of windows are compared: at most MOST_WINDOWS, spread over all of them."""
    return slice(None, None, spread_step(windows, MOST_WINDOWS))


def check_fidelity(
    forecasts: Forecasts,
    network: Forecaster,
    base: Base | None,
    dataset: WindowDataset,
    origins: Int64[Tensor, " windows"],
) -> float:
    """Compare an export's forecasts with those of the network's first member, averaged with its base, on some windows.

    forecasts: the export's, of all `origins`

    Returns the mean difference of the quantiles in standard deviations of the target. It is a mean because a value at
    the very threshold of a tree may fall to either side of it.

    Raises ExportError where forecasts aren't finite, or where they differ by more than TOLERANCE.
    """
    place = compared(len(origins))
    forecast = Forecasts(forecasts.mean[place], forecasts.quantiles[place])
    # Its export has left the network on the CPU.
    first = select_members(network, dataset.scalers, [0]).to(dataset.panel.observed.device)
    expected = next(forecast_with_base(first, dataset, origins[place], base))
    for each in (expected, forecast):
        if not (np.isfinite(each.quantiles).all() and np.isfinite(each.mean).all()):
            raise ExportError("the network forecasts values that are not finite: it can't be registered")
    difference = float(np.abs(forecast.quantiles - expected.quantiles).mean()) / dataset.scalers.observed.std[0]
    if difference > TOLERANCE:
        raise ExportError(
            f"the exported graph forecasts other values than the network: they differ by {difference:.2g} standard "
            f"deviations of the target on average, and may by {TOLERANCE:g}"
        )
    return difference


def is_constant(forecasts: Forecasts) -> bool:
    """Whether the forecasts of all windows are the same."""
    return len(forecasts.quantiles) > 1 and bool(np.ptp(forecasts.quantiles, axis=0).max() == 0)
