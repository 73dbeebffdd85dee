"""What a forecast rests on: how much worse it gets where a part of its input is that of another window.

Permutation importance (Breiman 2001, doi 10.1023/A:1010933404324) of groups of inputs, on the exported graph. What
stands in two groups counts for neither: the forecast still has the other.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.data.grid import DAY, HOUR, Grid
from tutelage.data.windows import spread_step
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import exported_inputs, forecast_inputs
from tutelage.forecasts import crps
from tutelage.judge.verdict import actual_values
from tutelage.model.inference import Student

MOST_WINDOWS = 64
"""A graph with a pretrained model takes some 20 ms for each."""
HOUR_OF_DAY, WEEKDAY, HOLIDAY = range(3)
"""Calendar columns of the known inputs; the known_future columns follow."""


def input_groups(student: Student, grid: Grid, lookback: int) -> Iterator[tuple[str, str, slice, list[int]]]:
    """The groups of an exported student's inputs: their name, the input, its steps, its columns."""
    target, *others = student.card["observed"]
    last, near = (1, 7) if grid.step >= DAY else (max(1, HOUR // grid.step), grid.of_day)
    of_days = ("last week", "last day", "weeks")
    span, whole, before = of_days if grid.step >= DAY else ("last day", "last hour", "days")
    if HOUR < grid.step < DAY:
        whole = f"last {grid.name}"
    past = {
        f"{target}: the {whole}": slice(lookback - last, lookback),
        f"{target}: the rest of the {span}": slice(max(lookback - near, 0), lookback - last),
        f"{target}: the {before} before": slice(0, max(lookback - near, 0)),
    }
    yield from ((name, "observed", steps, [0]) for name, steps in past.items() if steps.stop > steps.start)
    yield from ((name, "observed", slice(None), [place]) for place, name in enumerate(others, start=1))
    if grid.step < DAY:
        yield "hour of the day", "known", slice(None), [HOUR_OF_DAY]
    yield "weekday and holiday", "known", slice(None), [WEEKDAY, HOLIDAY]
    for place, name in enumerate(student.card["known_future"], start=HOLIDAY + 1):
        yield f"{name}: ahead", "known", slice(None), [place]


def shuffled(
    values: Float[np.ndarray, "windows steps columns"], steps: slice, columns: list[int], order: np.ndarray
) -> Float[np.ndarray, "windows steps columns"]:
    """The same values, but of these steps and columns those of other windows."""
    changed = values.copy()
    for column in columns:
        changed[:, steps, column] = values[order][:, steps, column]
    return changed


def rests_on(
    student: Student, dataset: WindowDataset, origins: Int64[Tensor, " windows"], *, seed: int
) -> dict[str, float]:
    """The rise of the CRPS, as a share of it, for each group of inputs, the greatest first.

    origins: the test part; of more than MOST_WINDOWS, those that are spread over it
    """
    origins = origins[:: spread_step(len(origins), MOST_WINDOWS)]
    actual = actual_values(dataset, origins)
    seen, ahead = exported_inputs(student, dataset, origins)
    inputs = {"observed": seen, "known": ahead}

    def loss(given: dict[str, np.ndarray]) -> float:
        return float(crps(forecast_inputs(student, dataset, origins, given["observed"], given["known"]), actual).mean())

    # In a random circle each window gets the next one's values: none keeps its own.
    circle, order = np.random.default_rng(seed).permutation(len(origins)), np.empty(len(origins), dtype=np.int64)
    order[circle] = np.roll(circle, 1)
    unchanged = loss(inputs)
    if not unchanged > 0 or len(origins) < 2:
        return {}
    rises = {
        name: loss(inputs | {which: shuffled(inputs[which], steps, columns, order)}) / unchanged - 1
        for name, which, steps, columns in input_groups(student, dataset.panel.grid, seen.shape[1])
    }
    return dict(sorted(rises.items(), key=lambda item: -item[1]))
