"""What a student is averaged with, fitted on windows: simple forecasts, and their weights from held-out blocks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.data.windows import spread_step
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.students import forecast_students
from tutelage.errors import GapsError
from tutelage.forecasts import Contender, Forecasts, interpolated
from tutelage.model.base import (
    SAME_HOUR_DAYS,
    SEEN_DAYS,
    SIMPLE,
    Base,
    find_atom,
    find_weights,
    fit_changes,
    quantile_weights,
    same_hour,
)
from tutelage.model.days import recent_days
from tutelage.model.kinds import Pretrained
from tutelage.model.linear import LinearForecaster, fit_linear
from tutelage.model.networks import Forecaster
from tutelage.model.pretrained import pretrained_network
from tutelage.model.trees import MOST_ROWS, TREES, TREES_OF_SITES, Trees, fit_trees

Origins = Int64[Tensor, " windows"]
UNFITTED = (*SAME_HOUR_DAYS, Contender.PRETRAINED)
"""Simple forecasts that learn nothing from a dataset's windows."""


def linear_inputs(
    dataset: WindowDataset, origins: Origins
) -> tuple[Float[np.ndarray, "windows lookback"], Float[np.ndarray, "windows horizon known"]]:
    """What a linear forecaster sees of these windows: the target's past, and what is known ahead."""
    observed, known = dataset.student_inputs(origins)
    return observed[..., 0].cpu().double().numpy(), known.cpu().double().numpy()


def fit_linear_on(dataset: WindowDataset, origins: Origins) -> LinearForecaster:
    """A linear forecaster fitted on these windows.

    Raises GapsError where they are too few.
    """
    truth = dataset.truth(origins).cpu().double().numpy()
    return fit_linear(
        *linear_inputs(dataset, origins), truth, dataset.panel.step[origins].cpu().numpy(), dataset.panel.grid
    )


def fit_trees_on(dataset: WindowDataset, origins: Origins) -> Trees:
    """Boosted trees fitted on these windows; of very many of this site, evenly spread ones are taken."""
    grid = dataset.panel.grid
    others = torch.isin(origins, dataset.transfer.to(origins.device))
    here = origins[~others]
    here = here[:: spread_step(len(here) * dataset.horizon, MOST_ROWS * grid.of_hour)]
    origins = torch.cat([here, origins[others]])
    truth, known = dataset.truth(origins).cpu().double().numpy(), dataset.student_inputs(origins)[1].cpu()
    past, trees = _seen_past(dataset, origins, Contender.BOOSTED), TREES_OF_SITES if others.any() else TREES
    return fit_trees(past, known, truth, grid, trees=trees)


def forecast_trees(trees: Trees, dataset: WindowDataset, origins: Origins) -> Forecasts:
    """The trees' forecasts of these windows, in the target's unit."""
    known = dataset.student_inputs(origins)[1].cpu()
    return trees.forecast(_seen_past(dataset, origins, Contender.BOOSTED), known, dataset.panel.grid)


def _seen_past(dataset: WindowDataset, origins: Origins, name: Contender) -> Float[Tensor, "windows steps"]:
    """The target on the past days that a simple forecast sees, NaN where it is missing."""
    return dataset.long_past(origins, dataset.panel.grid.of_day * SEEN_DAYS[name])[..., 0].cpu()


def fit_base(
    dataset: WindowDataset,
    weights: Mapping[Contender, float] | None = None,
    *,
    pretrained: Pretrained | None = None,
) -> Base:
    """The simple forecasts fitted on the training part, with these weights; None: all of them, without a weight.

    Ridge and trees learn from the windows of other sites, too, where the dataset has some: of a few weeks by themselves
    they are worse than what is simple, and with sixteen homes' windows better (docs/log.md).

    pretrained: a pretrained model that is one of them

    Where there are too few windows for ridge regression, and it has no weight, it is left out.

    Raises GapsError where it has one.
    """
    linear, origins, everything = None, dataset.train, dataset.fitted_on()
    if weights is None or Contender.RIDGE in weights:
        try:
            linear = fit_linear_on(dataset, everything)
        except GapsError:
            if weights is not None:
                raise
    trees = fit_trees_on(dataset, everything) if weights is None or Contender.BOOSTED in weights else None
    past = dataset.student_inputs(origins)[0][..., 0].cpu().double().numpy()
    changes = fit_changes(past, dataset.truth(origins).cpu().double().numpy())
    if weights is None:
        weights = {name: 0.0 for name in SIMPLE if linear is not None or name is not Contender.RIDGE}
        weights |= {Contender.PRETRAINED: 0.0} if pretrained else {}
    return Base(weights, linear, trees, changes, pretrained=pretrained, grid=dataset.panel.grid)


def forecast_simple(
    base: Base, dataset: WindowDataset, origins: Origins, other: Mapping[Contender, Forecasts] = MappingProxyType({})
) -> dict[Contender, Forecasts]:
    """The base's simple forecasts of these windows, in the target's unit.

    other: another base's of the same windows; those that nothing was fitted for are taken from there
    """
    forecasts = {}
    for name in base.weights:
        if name in other and name in UNFITTED:
            forecasts[name] = other[name]
        elif name in SAME_HOUR_DAYS:
            days, past = SAME_HOUR_DAYS[name], _seen_past(dataset, origins, name).double()
            recent = recent_days(past, days, of_day=dataset.panel.grid.of_day)
            values = same_hour(recent, dataset.horizon, quantile_weights(days))
            forecasts[name] = Forecasts(*(each.numpy() for each in values))
        elif name is Contender.LAST_VALUE:
            last = linear_inputs(dataset, origins)[0][:, -1:]
            forecasts[name] = Forecasts(last + base.changes.mean, last[..., None] + base.changes.quantiles)
        elif name is Contender.BOOSTED and base.trees is not None:
            forecasts[name] = forecast_trees(base.trees, dataset, origins)
        elif name is Contender.PRETRAINED and base.pretrained is not None:
            model = pretrained_network(base.pretrained)
            native = model.in_chunks(_seen_past(dataset, origins, name))[:, : dataset.horizon]
            forecasts[name] = interpolated(native.numpy(), model.levels)
        elif base.linear is not None:
            forecasts[name] = base.linear.forecast(*linear_inputs(dataset, origins))
    return forecasts


def forecast_with_base(
    students: Forecaster,
    dataset: WindowDataset,
    origins: Origins,
    base: Base | None,
    simple: Mapping[Contender, Forecasts] | None = None,
) -> Iterator[Forecasts]:
    """The forecasts of each of the students side by side, one member after the other; without a base the network's.

    simple: the simple forecasts of these windows; None: they are computed here
    """
    members = forecast_students(students, dataset, origins)
    if base is None:
        yield from members
        return
    simple = forecast_simple(base, dataset, origins) if simple is None else simple
    for member in members:
        yield base.combine(member, simple)


def join_bases(bases: Iterable[Base]) -> Base:
    """The simple forecasts that any of several bases of one history has, without a weight, to compute each once."""
    every = list(bases)

    def part(name: str) -> Any:
        return next((fitted for base in every if (fitted := getattr(base, name)) is not None), None)

    names = {name: 0.0 for base in every for name in base.weights}
    return Base(
        names, part("linear"), part("trees"), every[0].changes, pretrained=part("pretrained"), grid=every[0].grid
    )


@dataclass(frozen=True)
class HeldOut:
    """Forecasts of windows by networks and simple forecasts that have not learned from them, and the actual values."""

    networks: dict[Contender, Forecasts]
    simple: dict[Contender, Forecasts]
    truth: Float[np.ndarray, "windows horizon"]


@dataclass(frozen=True)
class FittedSimple:
    """The simple forecasts of a history: fitted on all of it, and of each block by those of the other windows."""

    base: Base
    blocks: tuple[dict[Contender, Forecasts], ...]


@dataclass(frozen=True)
class SimpleForecasts:
    """The simple forecasts that learn from this site alone, and those that learn from other sites' windows, too.

    Without other sites they are the same.
    """

    alone: FittedSimple
    with_sites: FittedSimple

    def of(self, name: Contender) -> FittedSimple:
        """Those that a contender is averaged with: a twin knows no other site."""
        return self.alone if name is Contender.TWIN else self.with_sites


def fit_simple(
    whole: WindowDataset, blocks: Sequence[WindowDataset], pretrained: Pretrained | None = None
) -> SimpleForecasts:
    """Fit the simple forecasts on a history, and on it without each of its blocks.

    pretrained: a pretrained model that is one of them
    """

    def fit(whole: WindowDataset, blocks: Sequence[WindowDataset], before: FittedSimple | None = None) -> FittedSimple:
        others = [MappingProxyType({})] * len(blocks) if before is None else before.blocks
        held_out = tuple(
            forecast_simple(fit_base(block, pretrained=pretrained), block, block.validation, other)
            for block, other in zip(blocks, others, strict=True)
        )
        return FittedSimple(fit_base(whole, pretrained=pretrained), held_out)

    alone = fit(whole.alone(), [block.alone() for block in blocks])
    return SimpleForecasts(alone, fit(whole, blocks, alone) if len(whole.transfer) else alone)


def forecast_held_out(
    blocks: Sequence[WindowDataset], networks: Sequence[Mapping[Contender, Forecaster]], simple: FittedSimple | None
) -> HeldOut:
    """The forecasts of all blocks, each by what was fitted on the other windows; networks have one member each.

    A simple forecast that a block lacks is left out.
    """
    every = [
        {name: next(forecast_students(network, block, block.validation)) for name, network in of_block.items()}
        for block, of_block in zip(blocks, networks, strict=True)
    ]
    of_simple = () if simple is None else simple.blocks
    return HeldOut(
        networks=_joined(every),
        simple=_joined(of_simple),
        truth=np.concatenate([block.truth(block.validation).cpu().double().numpy() for block in blocks]),
    )


def _joined(blocks: Sequence[Mapping[Contender, Forecasts]]) -> dict[Contender, Forecasts]:
    """All blocks as one, of the contenders that each of them has."""
    names = [name for name in (blocks[0] if blocks else ()) if all(name in block for block in blocks)]
    return {
        name: Forecasts(
            np.concatenate([block[name].mean for block in blocks]),
            np.concatenate([block[name].quantiles for block in blocks]),
        )
        for name in names
    }


def with_simple(held_out: HeldOut, simple: FittedSimple) -> HeldOut:
    """The same windows and networks with other simple forecasts."""
    return replace(held_out, simple=_joined(simple.blocks))


def weigh(held_out: HeldOut, name: Contender, base: Base) -> Base:
    """The base with this contender's weights, and with the atom of a target that has one."""
    weighed = base.weighed(find_weights(held_out.networks[name], held_out.simple, held_out.truth))
    return replace(weighed, atom=find_atom(combine_held_out(held_out, name, weighed), held_out.truth))


def combine_held_out(held_out: HeldOut, name: Contender, base: Base | None) -> Forecasts:
    """This contender's forecasts of the held-out windows, as they are averaged."""
    network = held_out.networks[name]
    return network if base is None else base.combine(network, held_out.simple)
