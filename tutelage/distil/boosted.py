"""A teacher of gradient-boosted trees: the same privileged views, the same soft labels over bins, no network.

Trees forecast location and spread of the target; the distribution of their residuals gives the shape. The training part
is cut into blocks of time, and the labels of a block come from trees that have not seen it: a teacher that has
memorised its training windows would only repeat the truth to the student.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from tutelage.data.windows import gather_future
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SMALLEST_PROBABILITY, SoftLabels
from tutelage.distil.views import privileged_values
from tutelage.errors import GapsError
from tutelage.model.networks import encode_known

SEASONS_DAYS = (1, 7)
SMALLEST_SPREAD = 0.05
"""Lower limit of the spread, in standard deviations of the target."""


@dataclass(frozen=True)
class BoostedTeacher:
    """Trees for each block, and out-of-block residuals of all windows of the training part.

    places, spreads: the trees that forecast location and spread, by block
    block_of: (steps,), the block that an origin belongs to; -1 outside the training part
    residuals: (horizon, windows), divided by their spread, ascending by step
    """

    places: tuple[HistGradientBoostingRegressor, ...]
    spreads: tuple[HistGradientBoostingRegressor, ...]
    block_of: Int64[np.ndarray, " steps"]
    residuals: Float[np.ndarray, "horizon windows"]


def _features(
    dataset: WindowDataset, origins: Tensor, recipe: Recipe, generator: torch.Generator, shown: Tensor | None
) -> Float[np.ndarray, "rows features"]:
    """One row per window and lead time: the last day, the same step of past seasons, the calendar, the views.

    The auxiliary view covers only the last day: trees search every column, and older steps carry little information.
    """
    observed, known = dataset.student_inputs(origins)
    windows, horizon, of_day = len(origins), dataset.horizon, dataset.panel.grid.of_day
    past = observed[:, -of_day:].flatten(1)
    level = observed[:, :, 0].mean(dim=1, keepdim=True)
    views = privileged_values(
        dataset.panel,
        origins if shown is None else shown[origins],
        recipe.teacher.views,
        dataset.scalers,
        lookback=min(dataset.lookback, of_day),
        horizon=horizon,
        generator=generator,
    )
    of_window = torch.cat([past, level, views], dim=1)
    lead = torch.arange(horizon, device=origins.device)
    scaler = torch.tensor([dataset.scalers.known.mean, dataset.scalers.known.std], device=origins.device)
    of_hour = [encode_known(known, scaler), lead.expand(windows, -1).unsqueeze(-1)]
    for season in (days * of_day for days in SEASONS_DAYS):
        if season <= dataset.lookback:
            # The latest past step that is a whole number of seasons earlier.
            before = (lead - season * (lead // season + 1)) + dataset.lookback
            of_hour.append(observed[:, before, :1])
    if recipe.teacher.views.future_sigma is not None:
        # In addition to the whole future, the value of this row's step: trees can't index.
        of_hour.append(views[:, :horizon].unsqueeze(-1))
    rows = torch.cat([of_window.unsqueeze(1).expand(-1, horizon, -1), *of_hour], dim=-1)
    return rows.flatten(0, 1).cpu().numpy()


def _target(dataset: WindowDataset, origins: Tensor) -> Float[np.ndarray, " rows"]:
    """The standardised truth, one row per window and lead time."""
    values = gather_future(dataset.panel.observed[:, :1], origins, dataset.horizon).flatten()
    return ((values - dataset.scalers.observed.mean[0]) / dataset.scalers.observed.std[0]).cpu().numpy()


def train_boosted(
    dataset: WindowDataset, recipe: Recipe, *, seed: int, blocks: int = 5, trees: int = 100
) -> BoostedTeacher:
    """Train location and spread for each block on the windows that share no target step with it.

    Raises GapsError where there are too few windows for the number of blocks.
    """
    origins = dataset.train.sort().values
    held_out = origins.tensor_split(blocks)
    if len(origins) < 2 * blocks * dataset.horizon:
        raise GapsError(f"{len(origins)} windows are too few for {blocks} blocks that share no target step")
    shown = dataset.privileged_origins(recipe, [dataset.train], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows, target = _features(dataset, origins, recipe, generator, shown), _target(dataset, origins)
    row_origin = origins.repeat_interleave(dataset.horizon).cpu().numpy()
    block_of = np.full(len(dataset.panel.step), -1, dtype=np.int64)
    places, spreads, scaled = [], [], np.empty_like(target, dtype=np.float64)
    for block, part in enumerate(held_out):
        first, last = int(part[0]), int(part[-1])
        inside = (row_origin >= first) & (row_origin <= last)
        outside = (row_origin <= first - dataset.horizon) | (row_origin >= last + dataset.horizon)
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
        width = np.maximum(spread.predict(rows[inside]), SMALLEST_SPREAD)
        scaled[inside] = (target[inside] - place.predict(rows[inside])) / width
    residuals = np.sort(scaled.reshape(-1, dataset.horizon).T, axis=1)
    return BoostedTeacher(tuple(places), tuple(spreads), block_of, residuals)


def _place_and_spread(teacher: BoostedTeacher, rows: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Location and spread of each row, from the trees of its block; outside the blocks (-1), the mean of all trees."""
    place, spread = np.zeros(len(rows)), np.zeros(len(rows))
    blocks = len(teacher.places)
    for number, (place_trees, spread_trees) in enumerate(zip(teacher.places, teacher.spreads, strict=True)):
        for chosen, share in ((block == number, 1.0), (block == -1, 1 / blocks)):
            if chosen.any():
                place[chosen] += share * place_trees.predict(rows[chosen])
                spread[chosen] += share * spread_trees.predict(rows[chosen])
    return place, np.maximum(spread, SMALLEST_SPREAD)


def boosted_labels(
    teacher: BoostedTeacher, dataset: WindowDataset, origins: Int64[Tensor, " windows"], recipe: Recipe, *, seed: int
) -> SoftLabels:
    """The trees' forecasts as soft labels over the dataset's bins, averaged over noise draws.

    `origins` are one part, and `seed` is that of the training, as in `ensemble.ensemble_labels`.
    """
    shown = dataset.privileged_origins(recipe, [origins], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    draws = recipe.teacher.noise_draws if recipe.teacher.views.is_noisy else 1
    block = teacher.block_of[origins.cpu().numpy()].repeat(dataset.horizon)
    edges = (np.array(dataset.bins.edges[1:-1]) - dataset.scalers.observed.mean[0]) / dataset.scalers.observed.std[0]
    levels = (np.arange(teacher.residuals.shape[1]) + 0.5) / teacher.residuals.shape[1]
    total = np.zeros((len(origins), dataset.horizon, len(dataset.bins)))
    for _ in range(draws):
        place, spread = _place_and_spread(teacher, _features(dataset, origins, recipe, generator, shown), block)
        scaled = ((edges - place[:, None]) / spread[:, None]).reshape(len(origins), dataset.horizon, -1)
        for lead, residuals in enumerate(teacher.residuals):
            below = np.interp(scaled[:, lead], residuals, levels, left=0.0, right=1.0)
            total[:, lead] += np.diff(below, axis=1, prepend=0.0, append=1.0) / draws
    log_probabilities = torch.from_numpy(total).float().clamp(min=SMALLEST_PROBABILITY).log()
    return SoftLabels(origins, log_probabilities.to(origins.device))
