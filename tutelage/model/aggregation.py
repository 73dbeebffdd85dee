"""Weights of an average that follow what comes true: members that were right lately count for more.

A base's weights are fixed by held-out blocks of the history; the next season's are others. Step by step, the weight of
each member falls with what it has added to the average's loss, and returns a little to the fixed one. The intervals
follow at the same time (`tutelage.model.conformal`).

Source: Kivinen and Warmuth 1997, exponentiated gradient; Herbster and Warmuth 1998, the share that returns; Berrisch
and Ziel 2021, CRPS Learning, of quantiles. Weights for each level, as there, are no better here (docs/log.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from tutelage.data.grid import HOURLY, Grid
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts
from tutelage.model.conformal import EDGES, Widths, follow, hours_between, step_hours, widened

KNOTS = slice(4, None, 10)
"""Weights are learned from the levels 0.05, 0.15, … 0.95."""
KNOT_LEVELS = np.array(QUANTILE_LEVELS)[KNOTS]
RATE_PER_HOUR = 0.5
"""Of the weights' logarithms, for a loss as large as the average's 90 % interval is wide (docs/log.md)."""
RETURN_PER_HOUR = 0.012
"""The share of the way back to the fixed weights: of what was learned a quarter is left after five days of hours."""

Weights = Float[np.ndarray, " members"]


@dataclass(frozen=True)
class Atom:
    """The least value of a target that often takes it, such as 0 at night, and how far above it a quantile becomes it.

    Both in the target's unit.
    """

    value: float
    reach: float

    def settle(self, forecasts: Forecasts) -> Forecasts:
        """The forecasts with the quantiles near the atom, or below it, at its value."""
        return forecasts.with_quantiles(self.settled(forecasts.quantiles))

    def settled(self, quantiles: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """The quantiles with those near the atom, or below it, at its value."""
        return np.where(quantiles <= self.value + self.reach, self.value, quantiles)


@dataclass(frozen=True)
class Members:
    """The forecasts of the same windows that an average is made of, with the fixed weight of each.

    shares: the weights by the member's name; they sum to 1
    atom: of a target that has one
    """

    shares: Mapping[str, float]
    mean: Float[np.ndarray, "members windows horizon"]
    quantiles: Float[np.ndarray, "members windows horizon levels"]
    atom: Atom | None = None

    @property
    def fixed(self) -> Weights:
        """The fixed weights."""
        return np.array([*self.shares.values()])

    @property
    def learned_from(self) -> Float[np.ndarray, "members windows horizon knots"]:
        """The members at the knots, settled: where each is at an atom, such as at night, there is nothing to learn."""
        at_knots = self.quantiles[..., KNOTS]
        return at_knots if self.atom is None else self.atom.settled(at_knots)

    def at(self, windows: np.ndarray) -> "Members":
        """The forecasts of selected windows, by index or by mask."""
        return Members(self.shares, self.mean[:, windows], self.quantiles[:, windows], self.atom)

    def average(self, weights: Weights | None = None) -> Forecasts:
        """The weighted mean, quantile by quantile; without weights by the fixed ones."""
        share = self.fixed if weights is None else weights
        average = Forecasts(np.tensordot(share, self.mean, 1), np.tensordot(share, self.quantiles, 1))
        return average if self.atom is None else self.atom.settle(average)

    def wide(self, average: Forecasts, widths: Widths) -> Forecasts:
        """An average of these members with these widths; nothing is forecast below an atom."""
        wide = widened(average, widths)
        return wide if self.atom is None else Atom(self.atom.value, 0.0).settle(wide)


def follow_weights(
    weights: Weights,
    fixed: Weights,
    step: Int[np.ndarray, " values"],
    members: Float[np.ndarray, "members values knots"],
    actual: Float[np.ndarray, " values"],
    *,
    since: int | None = None,
    grid: Grid = HOURLY,
) -> Weights:
    """The weights after some steps have come true.

    step: the target step of each value, in any order; a step may be forecast several times, with different lead times
    members: what each member forecast, `Members.learned_from`
    since: the last step that came true before; None: the step before the first
    """
    for each, hours in hours_between(step, since, grid):
        here = step == each
        # Hours without a forecast bring the weights back, but one value after them counts as one.
        learned = _learned(weights, members[:, here], actual[here], RATE_PER_HOUR * step_hours(grid))
        weights = learned + (1 - (1 - RETURN_PER_HOUR) ** hours) * (fixed - learned)
    return weights


def _learned(weights: Weights, members: np.ndarray, actual: np.ndarray, rate: float) -> Weights:
    """The weights after one step's values, of members (members, values, knots)."""
    average = np.tensordot(weights, members, 1)
    width = float((average[:, -1] - average[:, 0]).mean())
    if width <= 0:
        return weights
    slope = np.where(actual[:, None] > average, -KNOT_LEVELS, 1 - KNOT_LEVELS)
    # Bounded, so that one hour in which the average has hardly any width, such as one at dusk, does not decide.
    added = np.clip((slope * (members - average)).mean(axis=(1, 2)) / width, -1.0, 1.0)
    learned = weights * np.exp(-rate * (added - added.min()))
    return learned / learned.sum()


def as_issued(
    members: Members,
    issue_step: Int[np.ndarray, " windows"],
    actual: Float[np.ndarray, "windows horizon"],
    grid: Grid = HOURLY,
) -> Forecasts:
    """One series' forecasts as they would have been issued: with the weights and widths by what was known by then."""
    horizon = actual.shape[1]
    target = (issue_step[:, None] + np.arange(horizon)).ravel()
    order = np.argsort(target, kind="stable")
    target, true, window, lead = target[order], actual.ravel()[order], order // horizon, order % horizon
    mean, quantiles = np.empty_like(members.mean[0]), np.empty_like(members.quantiles[0])
    edges, learned_from = np.empty((*actual.shape, len(EDGES))), members.learned_from
    weights, widths, done, since = members.fixed, Widths(), 0, None
    for each in np.argsort(issue_step, kind="stable"):
        known = int(np.searchsorted(target, issue_step[each]))
        if known > done:
            part = (window[done:known], lead[done:known])
            step, values = target[done:known], true[done:known]
            weights = follow_weights(
                weights, members.fixed, step, learned_from[:, *part], values, since=since, grid=grid
            )
            widths = follow(widths, step, edges[part], values, since=since, grid=grid)
            done, since = known, int(step[-1])
        here = members.at(np.array([each]))
        average = here.average(weights)
        wide = here.wide(average, widths)
        mean[each], quantiles[each], edges[each] = wide.mean[0], wide.quantiles[0], average.quantiles[0][:, EDGES]
    return Forecasts(mean, quantiles)
