"""Privileged views: what the teacher sees in addition to the student's window."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.data.windows import Panel, gather_future, gather_past
from tutelage.distil.privilege import Views
from tutelage.model.scaling import Scaler, Scalers


def privileged_width(panel: Panel, views: Views, *, lookback: int, horizon: int) -> int:
    """Number of privileged values per window."""
    future = horizon if views.future_sigma is not None else 0
    minutes = min(panel.grid.covering(views.minutes_hours), lookback) * panel.minutes.shape[1]
    auxiliary = lookback * panel.auxiliary.shape[1] if views.auxiliary else 0
    ahead = horizon * panel.auxiliary.shape[1] if views.sees_auxiliary_future else 0
    return future + minutes + auxiliary + ahead


def _standardised(values: Tensor, scaler: Scaler) -> Tensor:
    numbers = (torch.tensor(numbers, dtype=values.dtype) for numbers in (scaler.mean, scaler.std))
    mean, std = (each.to(values.device, non_blocking=True) for each in numbers)  # no host sync
    return ((values - mean) / std).nan_to_num(0.0)


def privileged_values(
    panel: Panel,
    origins: Int64[Tensor, " windows"],
    views: Views,
    scalers: Scalers,
    *,
    lookback: int,
    horizon: int,
    generator: torch.Generator,
) -> Float[Tensor, "windows privileged"]:
    """The views of the windows, standardised and concatenated; a missing value is 0, its column's mean.

    - future: the target over the horizon plus normal noise with standard deviation `future_sigma`, drawn anew at each
      call; a schedule's final noise where the views have one
    - high resolution: the raw readings of the last `minutes_hours`, as deviations from their steps' means
    - auxiliary: the privileged columns over the lookback
    - auxiliary future: the privileged columns over the horizon, with noise of `auxiliary_future_sigma`
    """
    parts, views = [], views.after(1.0)

    def noised(values: Tensor, sigma: float) -> Tensor:
        noise = torch.randn(values.shape, generator=generator, device=generator.device)
        return values + sigma * noise.to(values.device, non_blocking=True)

    if views.future_sigma is not None:
        target = Scaler(scalers.observed.mean[:1], scalers.observed.std[:1])
        future = _standardised(gather_future(panel.observed[:, :1], origins, horizon), target)
        parts.append(noised(future, views.future_sigma))
    if views.minutes_hours:
        minutes = gather_past(panel.minutes, origins, min(panel.grid.covering(views.minutes_hours), lookback))
        parts.append(_standardised(minutes.unsqueeze(-1), scalers.minutes))
    if views.auxiliary:
        parts.append(_standardised(gather_past(panel.auxiliary, origins, lookback), scalers.auxiliary))
    if views.auxiliary_future_sigma is not None:
        ahead = _standardised(gather_future(panel.auxiliary, origins, horizon), scalers.auxiliary)
        parts.append(noised(ahead, views.auxiliary_future_sigma))
    if not parts:
        return torch.zeros(len(origins), 0, device=panel.observed.device)
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def shuffle_windows(origins: Int64[Tensor, " windows"], *, seed: int) -> Int64[Tensor, " windows"]:
    """A permutation of a part's windows by the seed: whose privileged values a placebo teacher sees.

    No window gets its own values where there are two or more.
    """
    order = torch.randperm(len(origins), generator=torch.Generator().manual_seed(seed)).to(origins.device)
    # In a random circle of windows, each gets the values of the next.
    shown = torch.empty_like(origins)
    shown[order] = origins[order.roll(-1)]
    return shown
