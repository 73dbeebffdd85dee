"""One week of consecutive forecasts of a test part, for the plot of a verdict."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tutelage.distil.dataset import WindowDataset
from tutelage.forecasts import Forecasts


@dataclass(frozen=True)
class Week:
    """Consecutive steps as one window: times (UTC), forecasts and actual values, in the target's unit."""

    times: list[dt.datetime]
    forecasts: Forecasts
    actual: Float[np.ndarray, " steps"]


def one_week(dataset: WindowDataset, forecasts: Forecasts) -> Week:
    """About a week of consecutive forecasts of the test part, from its middle on where there is no gap."""
    grid = dataset.panel.grid
    rows = consecutive_windows(dataset.test.cpu().numpy(), dataset.horizon, of_day=grid.of_day)
    steps = [int(dataset.panel.step[dataset.test[row]]) + lead for row in rows for lead in range(dataset.horizon)]
    week, size = forecasts.at(np.array(rows)), float(dataset.panel.size_at(dataset.test[rows[:1]])[0])
    return Week(
        times=[grid.time(step) for step in steps],
        forecasts=Forecasts(size * week.mean.reshape(1, -1), size * week.quantiles.reshape(1, len(steps), -1)),
        actual=size * dataset.truth(dataset.test[rows]).cpu().numpy().reshape(-1),
    )


def consecutive_windows(origins: np.ndarray, horizon: int, *, of_day: int = 24) -> list[int]:
    """Rows of consecutive windows without a gap, for about a week; the search starts in the middle."""
    row_of = {int(origin): row for row, origin in enumerate(origins)}
    longest: list[int] = []
    for start in range(len(origins) // 2, len(origins), of_day):
        rows: list[int] = []
        origin = int(origins[start])
        while origin in row_of and len(rows) * horizon < 7 * of_day:
            rows.append(row_of[origin])
            origin += horizon
        if len(rows) > len(longest):
            longest = rows
        if len(longest) * horizon >= 7 * of_day:
            break
    return longest
