"""The base of student and twin: a network averaged, quantile by quantile, with simple forecasts of the same window.

The weights are not negative and sum to 1. They are those with the least CRPS on forecasts of held-out blocks of the
history (`tutelage.distil.base`): where a network is worth nothing, the simple forecasts are left.

Averaging quantiles: Vincent 1912; Lichtendahl et al. 2013. Choosing the weights by the pinball loss: Nowotarski and
Weron 2015, quantile regression averaging.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from tutelage.data.grid import HOURLY, Grid
from tutelage.data.windows import spread_step
from tutelage.forecasts import QUANTILE_LEVELS, Contender, Forecasts, crps
from tutelage.model.aggregation import KNOTS, Atom, Members
from tutelage.model.days import Days
from tutelage.model.kinds import Pretrained
from tutelage.model.linear import LinearForecaster
from tutelage.model.pretrained import CONTEXT_DAYS
from tutelage.model.trees import PAST_DAYS, Trees

SAME_HOUR_DAYS = {Contender.SAME_HOUR_7D: 7, Contender.SAME_HOUR_14D: 14, Contender.SAME_HOUR_28D: 28}
SEEN_DAYS = {**SAME_HOUR_DAYS, Contender.BOOSTED: PAST_DAYS, Contender.PRETRAINED: CONTEXT_DAYS}
"""How many past days a simple forecast sees, however many the network sees; a missing hour takes a day nearby."""
SIMPLE = (Contender.RIDGE, Contender.BOOSTED, *SAME_HOUR_DAYS, Contender.LAST_VALUE)
"""The simple forecasts that a network is averaged with, by itself or next to a pretrained model."""
ATOM_SHARE = 0.05
"""A least value that fewer hours take is no atom."""
REACHES = (0.0, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2)
"""In standard deviations of the target."""
LEAST_WEIGHT = 0.02
"""A smaller weight is set to 0: it costs hours of input and changes nothing."""
WEIGHED_WINDOWS = 600
"""The weights are chosen on at most this many windows, evenly spread, and on the levels 0.05, 0.15, … 0.95."""


@dataclass(frozen=True)
class Changes:
    """The change from the last value before the issue time: mean and quantiles by lead time, in the target's unit."""

    mean: Float[np.ndarray, " horizon"]
    quantiles: Float[np.ndarray, "horizon levels"]


@dataclass(frozen=True)
class Base:
    """Simple forecasts with the weight of each; the network has the rest.

    linear, trees, changes: the fitted parts of ridge, boosted trees and last value; None: it has no weight
    atom: of a target that has one
    pretrained: the pretrained model that is one of the forecasts
    grid: the steps of the past that it sees
    """

    weights: Mapping[Contender, float]
    linear: LinearForecaster | None
    trees: Trees | None
    changes: Changes
    atom: Atom | None = None
    pretrained: Pretrained | None = None
    grid: Grid = HOURLY

    def weighed(self, weights: Mapping[Contender, float]) -> "Base":
        """The same fitted parts with other weights; those without a weight are left out."""
        return Base(
            weights,
            self.linear if Contender.RIDGE in weights else None,
            self.trees if Contender.BOOSTED in weights else None,
            self.changes,
            self.atom,
            self.pretrained if Contender.PRETRAINED in weights else None,
            self.grid,
        )

    @property
    def network_share(self) -> float:
        """The network's weight."""
        return max(0.0, 1.0 - sum(self.weights.values()))

    @property
    def shares(self) -> dict[str, float]:
        """All weights by the member's name, the network's first: it may be 0."""
        return {"network": self.network_share, **{name.value: weight for name, weight in self.weights.items()}}

    def lookback(self, least: int) -> int:
        """How many past steps the forecast needs: `least`, or all days of the simple forecast that sees most."""
        days = [days for name, days in SEEN_DAYS.items() if self.weights.get(name)]
        return max([least, *(self.grid.of_day * each for each in days)])

    def members(self, network: Forecasts, simple: Mapping[Contender, Forecasts]) -> Members:
        """What is averaged, in the order of `shares`."""
        every = [network, *(simple[name] for name in self.weights)]
        return Members(
            self.shares,
            np.stack([each.mean for each in every]),
            np.stack([each.quantiles for each in every]),
            self.atom,
        )

    def combine(self, network: Forecasts, simple: Mapping[Contender, Forecasts]) -> Forecasts:
        """The weighted mean of the network's forecasts and the simple ones, quantile by quantile."""
        mean, quantiles = (self.network_share * part for part in (network.mean, network.quantiles))
        for name, weight in self.weights.items():
            mean = mean + weight * simple[name].mean
            quantiles = quantiles + weight * simple[name].quantiles
        combined = Forecasts(mean, quantiles)
        return combined if self.atom is None else self.atom.settle(combined)


def fit_changes(past: Float[np.ndarray, "windows lookback"], truth: Float[np.ndarray, "windows horizon"]) -> Changes:
    """The changes from the last value to each step of the horizon."""
    change = truth - past[:, -1:]
    return Changes(change.mean(axis=0), np.quantile(change, QUANTILE_LEVELS, axis=0).T)


def quantile_weights(days: int) -> Float[Tensor, "days levels"]:
    """What the quantiles of so few sorted values are made of: linear interpolation, as in `numpy.quantile`."""
    place = torch.tensor(QUANTILE_LEVELS, dtype=torch.float64) * (days - 1)
    below = place.floor().long().clamp(max=days - 2)
    share, level = place - below, torch.arange(len(place))
    weights = torch.zeros(days, len(place), dtype=torch.float64)
    weights[below, level] = 1 - share
    weights[below + 1, level] = share
    return weights


def same_hour(
    recent: Days, horizon: int, weights: Float[Tensor, "days levels"]
) -> tuple[Float[Tensor, "windows horizon"], Float[Tensor, "windows horizon levels"]]:
    """Mean and quantiles of the same step of the day on the last days that are known at issue time.

    recent: `recent_days`; weights: `quantile_weights` of their number
    """
    values = recent.movedim(1, -1)
    mean, quantiles = values.sum(dim=-1) / values.shape[-1], values.sort(dim=-1).values @ weights
    step = torch.arange(horizon, device=recent.device) % values.shape[1]
    return mean[:, step], quantiles[:, step]


def find_weights(
    network: Forecasts,
    simple: Mapping[Contender, Forecasts],
    truth: Float[np.ndarray, "windows horizon"],
) -> dict[Contender, float]:
    """The weights of the simple forecasts with the least mean pinball loss of the combination; small ones left out.

    All forecasts are of held-out windows. The loss is convex in the weights, so there is one least value.
    """
    step = spread_step(len(truth), WEIGHED_WINDOWS)
    members = [network, *simple.values()]
    values = np.stack([each.quantiles[::step, :, KNOTS] for each in members]).reshape(len(members), -1)
    levels = np.broadcast_to(np.array(QUANTILE_LEVELS)[KNOTS], members[0].quantiles[::step, :, KNOTS].shape)
    levels, actual = levels.ravel(), np.repeat(truth[::step].ravel(), values.shape[1] // truth[::step].size)
    scale = max(float(np.abs(actual - actual.mean()).mean()), np.finfo(float).tiny)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        error = actual - weights @ values
        slope = np.where(error > 0, -levels, 1 - levels)
        return float(-(slope * error).mean()) / scale, (values @ slope) / len(error) / scale

    found_weights = minimize(
        loss,
        np.full(len(members), 1 / len(members)),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(members),
        constraints=LinearConstraint(np.ones(len(members)), 1.0, 1.0),
    ).x
    return _without_small(list(simple), found_weights)


def find_atom(forecasts: Forecasts, truth: Float[np.ndarray, "windows horizon"]) -> Atom | None:
    """The atom with the reach that has the least CRPS; None where the least value is rare.

    The forecasts are of held-out windows, averaged but not settled.
    """
    least = float(truth.min())
    if not ATOM_SHARE <= float((truth == least).mean()) < 1:
        return None
    atoms = [Atom(least, reach * float(truth.std())) for reach in REACHES]
    return min(atoms, key=lambda atom: float(crps(atom.settle(forecasts), truth).mean()))


def _without_small(names: Sequence[Contender], weights: Float[np.ndarray, " members"]) -> dict[Contender, float]:
    """The weights of the simple forecasts by name, small ones left out; the first of all is the network's."""
    clear = np.where(weights < LEAST_WEIGHT, 0.0, weights)
    clear = clear / clear.sum()
    return {name: float(weight) for name, weight in zip(names, clear[1:], strict=True) if weight}
