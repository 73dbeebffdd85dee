"""Gradient-boosted quantile regression: for some quantile levels an ensemble of small trees, trained by LightGBM.

One row for each window and step ahead: the last day hour by hour, the last hour step by step, the same step on the days
of the last week, its mean, spread and order statistics over four weeks, the level day by day, the clock and the known
columns. The target is the
change from the last value, so that a forecast follows a level that training did not hold. The trees are kept as arrays
of complete binary trees, so that forecast and ONNX graph are the same computation.

Source: Ke et al. 2017, LightGBM; Landry et al. 2016, Probabilistic gradient boosting machines for GEFCom2014 wind
forecasting, for one model per quantile level.
"""

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn.functional import embedding

from tutelage.data.grid import HOURLY, Grid
from tutelage.forecasts import Forecasts, interpolated
from tutelage.model.days import Days, recent_days
from tutelage.model.threads import side_by_side

LEVELS = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
TREES, DEPTH = 60, 4
"""Trees for each level, and their depth: 16 leaves."""
TREES_OF_SITES = 150
"""For windows of other sites, of which there are more; with 60 trees they are 1.5 % worse (docs/log.md)."""
INNER_NODES = 2**DEPTH - 1
PAST_DAYS, WEEK_DAYS = 28, 7
ORDER_STATISTICS = (2, 7, 13, 20, 25)
"""Of the sorted values of the same step on the past days: about the levels 0.1, 0.3, 0.5, 0.75 and 0.9."""
MOST_ROWS = 15_000
"""Of more rows, one for each window and hour ahead, more brought nothing a day ahead, and take longer."""
PARAMETERS = {
    "objective": "quantile",
    "learning_rate": 0.12,
    "max_depth": DEPTH,
    "num_leaves": 2**DEPTH,
    "min_data_in_leaf": 60,
    "feature_fraction_bynode": 0.5,
    "feature_pre_filter": False,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}
CHUNK_ROWS = 4096
"""Rows that are forecast at once: each has an entry for every tree."""


@dataclass(frozen=True)
class Trees:
    """Complete binary trees of one depth, level by level. A value above a node's threshold goes to the right.

    Node n has the children 2n + 1 and 2n + 2; the leaves follow the inner nodes. The values of a level's trees add up
    to its quantile's change from the last value, in the target's unit.
    """

    column: UInt8[np.ndarray, "levels trees inner_nodes"]
    threshold: Float32[np.ndarray, "levels trees inner_nodes"]
    value: Float32[np.ndarray, "levels trees leaves"]

    def forecast(
        self,
        past: Float[Tensor, "windows steps"],
        known: Float[Tensor, "windows horizon known"],
        grid: Grid = HOURLY,
    ) -> Forecasts:
        """Forecast windows from the target's past, `PAST_DAYS` days or more, and what is known ahead."""
        tensors = [torch.from_numpy(each) for each in (self.column, self.threshold, self.value)]
        at_once = max(1, CHUNK_ROWS // known.shape[1])
        parts = [
            tree_quantiles(recent_days(part, PAST_DAYS, of_day=grid.of_day), ahead, *tensors, grid=grid)
            for part, ahead in zip(past.split(at_once), known.split(at_once), strict=True)
        ]
        return interpolated(torch.cat(parts).numpy(), LEVELS)


def tree_columns(
    recent: Days, known: Float[Tensor, "windows horizon known"], *, grid: Grid
) -> Float32[Tensor, "windows horizon columns"]:
    """What the trees see of each step ahead: all values of the target but one relative to the last.

    recent: the target's `recent_days`, PAST_DAYS of them, of a past whose last value is there
    """
    # In double precision, so that the graph's sums are on the same side of every threshold.
    horizon, values = known.shape[1], recent.double()
    last = values[:, 0, -1:]
    days = values - last.unsqueeze(-1)
    lead = torch.arange(horizon, device=recent.device)
    place, week = lead % grid.of_day, days[:, :WEEK_DAYS]
    last_day, last_hour = _by_hour(days[:, 0], grid)
    week_by_day = week.sum(dim=2) / grid.of_day
    of_window = [*last_day, week_by_day, week_by_day.sum(dim=1, keepdim=True) / WEEK_DAYS, last, *last_hour]
    same_step = days[:, :, place]
    of_week = same_step[:, :WEEK_DAYS]
    mean = same_step.sum(dim=1, keepdim=True) / PAST_DAYS
    # In few operations: the time that an export takes grows with their number.
    of_step = [
        of_week,
        of_week.sum(dim=1, keepdim=True) / WEEK_DAYS,
        mean,
        (((same_step - mean) ** 2).sum(dim=1, keepdim=True) / PAST_DAYS).sqrt(),
        same_step.sort(dim=1).values[:, list(ORDER_STATISTICS)],
        days[:, :1, (place - 1) % grid.of_day],
        days[:, :1, (place + 1) % grid.of_day],
        lead.double().expand(known.shape[0], 1, -1),
    ]
    of_windows = torch.cat(of_window, dim=1).unsqueeze(1).expand(-1, horizon, -1)
    return torch.cat([of_windows, torch.cat(of_step, dim=1).transpose(1, 2), known.double()], dim=-1).float()


def _by_hour(day: Float[Tensor, "windows of_day"], grid: Grid) -> tuple[list[Tensor], list[Tensor]]:
    """The last day by hour, or by a longer step, and the last hour by step where steps are shorter."""
    if grid.of_hour == 1:
        return [day], []
    return [day.unflatten(1, (-1, grid.of_hour)).sum(dim=2) / grid.of_hour], [day[:, -grid.of_hour :]]


def tree_quantiles(
    recent: Days,
    known: Float[Tensor, "windows horizon known"],
    column: Tensor,
    threshold: Tensor,
    value: Tensor,
    *,
    grid: Grid,
) -> Float[Tensor, "windows horizon levels"]:
    """The quantiles at LEVELS, ascending, in the target's unit; the last three are the arrays of `Trees`."""
    rows = tree_columns(recent, known, grid=grid).flatten(0, 1)
    columns, thresholds, values = (each.flatten().unsqueeze(1) for each in (column.long(), threshold, value))
    number = torch.arange(columns.shape[0] // INNER_NODES, device=rows.device)
    node = torch.zeros(1, dtype=torch.int64, device=rows.device)
    for _ in range(DEPTH):
        place = number * INNER_NODES + node
        # As embeddings: an index would put a copy of the table into the graph for each level.
        chosen = rows.gather(1, embedding(place, columns).squeeze(-1).expand(rows.shape[0], -1))
        right = chosen > embedding(place, thresholds).squeeze(-1)
        node = 2 * node + 1 + right.long()
    of_trees = embedding(number * (INNER_NODES + 1) + node - INNER_NODES, values).squeeze(-1)
    changes = of_trees.unflatten(1, (len(LEVELS), -1)).sum(dim=-1).unflatten(0, (-1, known.shape[1]))
    return (recent[:, 0, -1, None, None] + changes).sort(dim=-1).values


def fit_trees(
    past: Float[Tensor, "windows steps"],
    known: Float[Tensor, "windows horizon known"],
    truth: Float[np.ndarray, "windows horizon"],
    grid: Grid = HOURLY,
    *,
    trees: int = TREES,
) -> Trees:
    """Fit on windows; `past` and `known` are as in `Trees.forecast`. More than MOST_ROWS rows only take longer."""
    change = (truth - past[:, -1:].double().numpy()).ravel()
    rows = tree_columns(recent_days(past, PAST_DAYS, of_day=grid.of_day), known, grid=grid).flatten(0, 1).numpy()
    dataset = lightgbm.Dataset(rows, change, params=PARAMETERS).construct()

    def fit(level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _complete_trees(lightgbm.train(PARAMETERS | {"alpha": level}, dataset, num_boost_round=trees), trees)

    # Side by side, each on one thread: LightGBM's own threads wait for each other on so few rows.
    every = side_by_side(fit, LEVELS, torch.device("cpu"))
    return Trees(*(np.stack(arrays) for arrays in zip(*every, strict=True)))


def _complete_trees(booster: lightgbm.Booster, trees: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns, thresholds and values of a booster's trees; there may be fewer trees than asked for, the rest are 0."""
    column = np.zeros((trees, INNER_NODES), dtype=np.uint8)
    threshold = np.full((trees, INNER_NODES), np.inf, dtype=np.float32)
    value = np.zeros((trees, INNER_NODES + 1), dtype=np.float32)

    def place(tree: int, node: int, given: dict[str, Any]) -> None:
        if node >= INNER_NODES:
            value[tree, node - INNER_NODES] = given["leaf_value"]
            return
        if "leaf_value" in given:  # a leaf above the last level: the same value on both sides
            children = (given, given)
        else:
            column[tree, node] = given["split_feature"]
            threshold[tree, node] = _rounded_down(given["threshold"])
            children = (given["left_child"], given["right_child"])
        for side, child in enumerate(children):
            place(tree, 2 * node + 1 + side, child)

    for tree, info in enumerate(booster.dump_model()["tree_info"]):
        place(tree, 0, info["tree_structure"])
    return column, threshold, value


def _rounded_down(value: float) -> np.float32:
    """The largest finite float32 that is not above: the columns are float32, so the same of them are above it."""
    rounded = np.float32(min(value, float(np.finfo(np.float32).max)))
    return rounded if float(rounded) <= value else np.nextafter(rounded, np.float32(-np.inf))
