"""The last days of a window, step by step."""

import torch
from jaxtyping import Float
from torch import Tensor


def recent_days(
    past: Float[Tensor, "windows steps"], days: int, *, of_day: int
) -> Float[Tensor, "windows days of_day"]:
    """The last days before the issue time, the latest first.

    past: `of_day` steps for each day, or more; a missing value is NaN and takes that of the next later day, else of
        the next earlier one, else the last value before the issue time
    """
    values = past[:, -of_day * days :].unflatten(1, (days, of_day)).flip(1)
    # In steps of 1, 2, 4 … days, which end at the nearest: an exported graph has a node for each.
    steps = [2**power for power in range((days - 1).bit_length())]
    for step in steps:
        later = torch.cat([values[:, :step], values[:, :-step]], dim=1)
        values = torch.where(values.isnan(), later, values)
    for step in steps:
        earlier = torch.cat([values[:, step:], values[:, -step:]], dim=1)
        values = torch.where(values.isnan(), earlier, values)
    return torch.where(values.isnan(), past[:, -1, None, None], values)
