"""The last days of a window, step by step."""

import torch
from jaxtyping import Float
from torch import Tensor

Days = Float[Tensor, "windows days of_day"]
"""Days before the issue time, the latest first."""


def recent_days(past: Float[Tensor, "windows steps"], days: int, *, of_day: int) -> Days:
    """The last days before the issue time, the latest first.

    past: `of_day` steps for each day, or more; a missing value is NaN and takes that of the next later day, else of
        the next earlier one, else the last value before the issue time
    """
    return fill_from_earlier(fill_from_later(past, days, of_day=of_day))


def fill_from_later(past: Float[Tensor, "windows steps"], days: int, *, of_day: int) -> Days:
    """The last days before the issue time, in which a missing value takes that of the next later day, if there is one.

    Its first days are what it gives for fewer.
    """
    values = past[:, -of_day * days :].unflatten(1, (days, of_day)).flip(1)
    # In steps of 1, 2, 4 … days, which end at the nearest: an exported graph has nodes for each.
    for step in (2**power for power in range((days - 1).bit_length())):
        later = torch.cat([values[:, :step], values[:, :-step]], dim=1)
        values = torch.where(values.isnan(), later, values)
    return values


def fill_from_earlier(recent: Days) -> Days:
    """Days of `fill_from_later` in which a missing value takes that of the next earlier day, else the last value."""
    # What is missing here has no later day, so the nearest earlier one is the first that has a value.
    first = recent.isnan().logical_not().long().argmax(dim=1, keepdim=True)
    filled = torch.where(recent.isnan(), recent.gather(1, first), recent)
    return torch.where(filled.isnan(), recent[:, :1, -1:], filled)
