"""A teacher of gradient-boosted trees: the same privileged views, the same soft labels over bins, no network.

Trees foretell the target's place and spread, and the residuals' own distribution fills in the shape. The training part
is cut into blocks of time, and what is said of a block comes from trees that have not seen it: a teacher that knows
its own training windows by heart would hand the student the truth again.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from tutelage.distillation import Task
from tutelage.errors import GapsError
from tutelage.networks import encode_known
from tutelage.recipe import Recipe
from tutelage.views import privileged_values
from tutelage.windows import gather_future

PAST_HOURS = 24
SEASONS = (24, 168)
SMALLEST_SPREAD = 0.05
"""In standard deviations of the target: no residual is divided by less."""


@dataclass(frozen=True)
class BoostedTeacher:
    """Trees a block, and the residuals of all windows of the training part, each from trees that had not seen it.

    block_of: (hours,), the block that an origin was held out in; -1 where no trees have seen it
    residuals: (horizon, windows), ascending, over their spread
    """

    places: tuple[HistGradientBoostingRegressor, ...]
    spreads: tuple[HistGradientBoostingRegressor, ...]
    block_of: Int64[np.ndarray, " hours"]
    residuals: Float[np.ndarray, "horizon windows"]


def _features(
    task: Task, origins: Tensor, recipe: Recipe, generator: torch.Generator, shown: Tensor | None
) -> Float[np.ndarray, "rows features"]:
    """One row a window and hour ahead: the last day, the same hour of past seasons, the calendar, the views.

    Of the auxiliary view it takes the last day: trees search every column, and the older ones say little.
    """
    observed, known = task.student_inputs(origins)
    windows, horizon = len(origins), task.horizon
    past = observed[:, -PAST_HOURS:].flatten(1)
    level = observed[:, :, 0].mean(dim=1, keepdim=True)
    views = privileged_values(
        task.panel,
        origins if shown is None else shown[origins],
        recipe.views,
        task.scalers,
        lookback=min(task.lookback, PAST_HOURS),
        horizon=horizon,
        generator=generator,
    )
    of_window = torch.cat([past, level, views], dim=1)
    lead = torch.arange(horizon, device=origins.device)
    scaler = torch.tensor([task.scalers.known.mean, task.scalers.known.std], device=origins.device)
    of_hour = [encode_known(known, scaler), lead.expand(windows, -1).unsqueeze(-1)]
    for season in SEASONS:
        if season <= task.lookback:
            # The last hour of that season's rhythm that is already past.
            before = (lead - season * (lead // season + 1)) + task.lookback
            of_hour.append(observed[:, before, :1])
    if recipe.views.future_sigma is not None:
        # Beside the whole future, the one of this very hour: trees can't index.
        of_hour.append(views[:, :horizon].unsqueeze(-1))
    rows = torch.cat([of_window.unsqueeze(1).expand(-1, horizon, -1), *of_hour], dim=-1)
    return rows.flatten(0, 1).cpu().numpy()


def _target(task: Task, origins: Tensor) -> Float[np.ndarray, " rows"]:
    """The truth in standard deviations, one row a window and hour ahead."""
    values = gather_future(task.panel.observed[:, :1], origins, task.horizon).flatten()
    return ((values - task.scalers.observed.mean[0]) / task.scalers.observed.std[0]).cpu().numpy()


def train_boosted(task: Task, recipe: Recipe, *, seed: int, blocks: int = 5, trees: int = 100) -> BoostedTeacher:
    """Train place and spread, block by block on the windows that share no target hour with it.

    Raises GapsError where there are too few windows for so many blocks.
    """
    origins = task.train.sort().values
    held_out = origins.tensor_split(blocks)
    if len(origins) < 2 * blocks * task.horizon:
        raise GapsError(f"{len(origins)} windows are too few for {blocks} blocks that share no target hour")
    shown = task.privileged_origins(recipe, [task.train], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows, target = _features(task, origins, recipe, generator, shown), _target(task, origins)
    row_origin = origins.repeat_interleave(task.horizon).cpu().numpy()
    block_of = np.full(len(task.panel.hour), -1, dtype=np.int64)
    places, spreads, scaled = [], [], np.empty_like(target, dtype=np.float64)
    for block, part in enumerate(held_out):
        first, last = int(part[0]), int(part[-1])
        inside = (row_origin >= first) & (row_origin <= last)
        outside = (row_origin <= first - task.horizon) | (row_origin >= last + task.horizon)
        block_of[part.cpu().numpy()] = block
        place = HistGradientBoostingRegressor(
            max_iter=trees, max_leaf_nodes=15, min_samples_leaf=40, max_features=0.5, random_state=seed
        ).fit(rows[outside], target[outside])
        residual = np.abs(target[outside] - place.predict(rows[outside]))
        spread = HistGradientBoostingRegressor(
            max_iter=trees // 2, max_leaf_nodes=8, min_samples_leaf=80, max_features=0.5, random_state=seed
        ).fit(rows[outside], residual)
        places.append(place)
        spreads.append(spread)
        wide = np.maximum(spread.predict(rows[inside]), SMALLEST_SPREAD)
        scaled[inside] = (target[inside] - place.predict(rows[inside])) / wide
    residuals = np.sort(scaled.reshape(-1, task.horizon).T, axis=1)
    return BoostedTeacher(tuple(places), tuple(spreads), block_of, residuals)


def _place_and_spread(teacher: BoostedTeacher, rows: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the trees say of each row: those that have not seen its block, or the mean of all where none have."""
    place, spread = np.zeros(len(rows)), np.zeros(len(rows))
    every = len(teacher.places)
    for number, (at, wide) in enumerate(zip(teacher.places, teacher.spreads, strict=True)):
        for chosen, share in ((block == number, 1.0), (block == -1, 1 / every)):
            if chosen.any():
                place[chosen] += share * at.predict(rows[chosen])
                spread[chosen] += share * wide.predict(rows[chosen])
    return place, np.maximum(spread, SMALLEST_SPREAD)


def boosted_soft_labels(
    teacher: BoostedTeacher, task: Task, origins: Int64[Tensor, " windows"], recipe: Recipe, *, seed: int
) -> Float[Tensor, "windows horizon bins"]:
    """The trees' forecasts as log-probabilities over the task's bins, averaged over noise draws.

    As `distillation.soft_labels` in all else: the origins are one part, the seed is that of the training.
    """
    shown = task.privileged_origins(recipe, [origins], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    draws = recipe.draws if recipe.views.future_sigma is not None else 1
    block = teacher.block_of[origins.cpu().numpy()].repeat(task.horizon)
    edges = (np.array(task.bins.edges[1:-1]) - task.scalers.observed.mean[0]) / task.scalers.observed.std[0]
    levels = (np.arange(teacher.residuals.shape[1]) + 0.5) / teacher.residuals.shape[1]
    total = np.zeros((len(origins), task.horizon, len(task.bins)))
    for _ in range(draws):
        place, spread = _place_and_spread(teacher, _features(task, origins, recipe, generator, shown), block)
        scaled = ((edges - place[:, None]) / spread[:, None]).reshape(len(origins), task.horizon, -1)
        for lead, residuals in enumerate(teacher.residuals):
            below = np.interp(scaled[:, lead], residuals, levels, left=0.0, right=1.0)
            total[:, lead] += np.diff(below, axis=1, prepend=0.0, append=1.0) / draws
    return torch.from_numpy(total).float().clamp(min=1e-12).log().to(origins.device)
