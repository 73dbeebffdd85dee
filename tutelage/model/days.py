"""The last days of a window hour by hour, and windows spread evenly over the hours of the day."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

DAY_HOURS = 24


def recent_days(past: Float[Tensor, "windows hours"], days: int) -> Float[Tensor, "windows days day_hours"]:
    """The last days before the issue time, the latest first.

    past: 24 hours for each day, or more; a missing value is NaN and takes that of the next later day, else of the next
        earlier one, else the last value before the issue time
    """
    latest_first = past[:, -DAY_HOURS * days :].unflatten(1, (days, DAY_HOURS)).flip(1).unbind(1)
    filled = list(latest_first)
    for day in range(1, days):
        filled[day] = torch.where(filled[day].isnan(), filled[day - 1], filled[day])
    for day in range(days - 2, -1, -1):
        filled[day] = torch.where(filled[day].isnan(), filled[day + 1], filled[day])
    values = torch.stack(filled, dim=1)
    return torch.where(values.isnan(), past[:, -1, None, None], values)


def spread_step(windows: int, most: int) -> int:
    """The step by which to take no more than `most` of windows that follow hour by hour.

    It shares no divisor with 24, so that the windows taken are of all hours of the day.
    """
    step = max(1, -(-windows // most))
    while math.gcd(step, DAY_HOURS) > 1:
        step += 1
    return step
