"""The base of student and twin: a network's quantiles averaged with those of a linear forecaster.

Neither wins everywhere: a linear forecaster follows a level that moves, and is calibrated; a network can forecast the
two humps of an appliance that is on or off. The mean of their quantiles (Vincent 1912; Lichtendahl et al. 2013) was
better than both on most earlier periods of the household. Where a series drifts away from its training the linear part
forecasts by itself: docs/log.md.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.distil.dataset import WindowDataset
from tutelage.distil.students import forecast_students
from tutelage.forecasts import Forecasts
from tutelage.model.linear import Base, LinearForecaster, fit_linear
from tutelage.model.networks import Forecaster

SHARES = (0.5, 0.0)
"""Of the network in the average. More than half is not offered: it stopped by the part that would choose the share."""


def linear_inputs(
    dataset: WindowDataset, origins: Int64[Tensor, " windows"]
) -> tuple[Float[np.ndarray, "windows lookback"], Float[np.ndarray, "windows horizon known"]]:
    """What a linear forecaster sees of these windows: the target's past, and what is known ahead."""
    observed, known = dataset.student_inputs(origins)
    return observed[..., 0].cpu().double().numpy(), known.cpu().double().numpy()


def fit_linear_on(dataset: WindowDataset, origins: Int64[Tensor, " windows"]) -> LinearForecaster:
    """A linear forecaster fitted on these windows.

    Raises GapsError where they are too few.
    """
    truth = dataset.truth(origins).cpu().double().numpy()
    return fit_linear(*linear_inputs(dataset, origins), truth, dataset.panel.hour[origins].cpu().numpy())


def forecast_with_base(
    students: Forecaster, dataset: WindowDataset, origins: Int64[Tensor, " windows"], base: Base | None
) -> Iterator[Forecasts]:
    """The forecasts of each of the students side by side, one member after the other; without a base the network's."""
    members = forecast_students(students, dataset, origins)
    if base is None:
        yield from members
        return
    linear = base.linear.forecast(*linear_inputs(dataset, origins))
    for member in members:
        yield base.blend(member, linear)
