"""Ridge regression by lead time as a distribution: closed form, no epochs, its residuals cross-fitted.

For each step ahead one ridge regression on what the student sees: the last day by hour and the last hour by step, the
same step and its neighbours on the days of the lookback, running means, the clock and the known columns. A second one,
on the logarithm of the absolute residual, gives the scale. The quantiles are those of the scaled residuals by the hour
of the day.

Residuals are honest: each is from a fit without its block of time, with a gap of the horizon to either side. The
penalty is the one with the smallest error on these blocks. A scale stays within what these fits have given: beyond, in
another season, its exponential would have no bound.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from tutelage.data.grid import HOURLY, Grid
from tutelage.errors import GapsError
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts

BLOCKS = 5
PENALTIES = np.array([3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5])
LAST_WORKDAY = 4
MEANS_HOURS = (6, 24, 72, 168)
DAY_HOURS, DAYS_OF_A_WEEK = 24, 7
CALENDAR_COLUMNS = 3
"""Of the known values: hour of the day, day of the week, public holiday."""
LEAST_RESIDUALS = 60
"""Fewer at one hour of the day, with its neighbours, are no distribution: then those of all hours are taken."""
SMALL_SHARE = 0.05
"""Of the mean absolute residual, added before the logarithm: a residual of 0 must not have a scale of 0."""

Past = Float[np.ndarray, "windows lookback"]
Known = Float[np.ndarray, "windows horizon known"]


@dataclass(frozen=True)
class LinearForecaster:
    """A regression for each lead time, of the target and of its residual's log size, and quantiles of the residuals.

    All columns are sums over the past or entries of the calendar, so that the regression is kept in these terms; the
    first axis has the target's and the log size's coefficients. Past and target are in the target's unit. The log size
    stays within `size_range`.
    """

    intercept: Float[np.ndarray, "two horizon"]
    past: Float[np.ndarray, "two lookback horizon"]
    clock: Float[np.ndarray, "two horizon clock"]
    weekday: Float[np.ndarray, "two horizon days"]
    planned: Float[np.ndarray, "two horizon planned"]
    residuals: Float[np.ndarray, "horizon hours levels"]
    size_range: Float[np.ndarray, "two horizon"]

    def forecast(self, past: Past, known: Known) -> Forecasts:
        """Forecast windows from the target's past and what is known ahead, in the target's unit."""
        lead = np.arange(known.shape[1])
        hour, weekday, clock = _calendar(known)
        mean, log_size = (
            self.intercept[part]
            + past @ self.past[part]
            + self.clock[part][lead, clock]
            + self.weekday[part][lead, weekday]
            + (known[..., CALENDAR_COLUMNS:] * self.planned[part]).sum(axis=-1)
            for part in range(2)
        )
        size = np.exp(log_size.clip(*self.size_range))
        return Forecasts(mean, mean[..., None] + size[..., None] * self.residuals[lead, hour])


def _calendar(known: Known) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hour of the day, day of the week, and the hour with whether the day is free: (windows, horizon) each."""
    hour, weekday = known[..., 0].astype(int), known[..., 1].astype(int)
    free = (weekday > LAST_WORKDAY) | (known[..., 2] > 0)
    return hour, weekday, hour + DAY_HOURS * free


def _of_past(lookback: int, lead: int, grid: Grid) -> Float[np.ndarray, "lookback columns"]:
    """The columns of one lead time that are sums over the past, as weights of its steps.

    The last day hour by hour, the last hour step by step, the same step of earlier days with its neighbours, and
    running means. A step of more than an hour takes the place of the hour.
    """
    every = np.eye(lookback)
    recent = [every[:, -min(grid.of_day, lookback) :]]
    if grid.of_hour > 1:
        hours = recent[0].reshape(lookback, -1, grid.of_hour).mean(axis=2)
        recent = [hours, every[:, -grid.of_hour :]]
    days = range(1, lookback // grid.of_day + 1)
    lags = dict.fromkeys(lead - grid.of_day * day + shift for day in days for shift in (-1, 0, 1))
    same_step = every[:, [lookback + lag for lag in lags if -lookback <= lag < 0]]
    steps = [hours * grid.of_day // DAY_HOURS for hours in MEANS_HOURS]
    means = [every[:, -number:].mean(axis=1, keepdims=True) for number in steps if 1 < number <= lookback]
    return np.concatenate([*recent, same_step, *means], axis=1)


def fit_linear(
    past: Past,
    known: Known,
    truth: Float[np.ndarray, "windows horizon"],
    issue_step: Int[np.ndarray, " windows"],
    grid: Grid = HOURLY,
) -> LinearForecaster:
    """Fit on windows in any order; `issue_step` is the step of each, so that blocks of time can be separated.

    Raises GapsError where there are too few windows for blocks with gaps between them.
    """
    blocks = _blocks(issue_step, truth.shape[1])
    hour, weekday, clock = _calendar(known)
    leads: list[list[np.ndarray]] = []
    with threadpool_limits(1, "blas"):  # the matrices are small: threads would only wait for each other
        for lead in range(truth.shape[1]):
            weights = _of_past(past.shape[1], lead, grid)
            calendar = [np.eye(2 * DAY_HOURS)[clock[:, lead]], np.eye(DAYS_OF_A_WEEK)[weekday[:, lead]]]
            columns = np.concatenate([past @ weights, *calendar, known[:, lead, CALENDAR_COLUMNS:]], axis=1)
            intercepts, coefficients, scaled, size_range = _fit_lead(columns, truth[:, lead], blocks)
            ends = np.cumsum([weights.shape[1], 2 * DAY_HOURS, DAYS_OF_A_WEEK])
            of_hours, *others = np.split(coefficients, ends, axis=1)
            residuals_by_hour = _quantiles_by_hour(scaled, hour[:, lead])
            leads.append([intercepts, of_hours @ weights.T, *others, residuals_by_hour, size_range])
    intercept, of_past, of_clock, of_weekday, of_planned, residuals, ranges = zip(*leads, strict=True)
    return LinearForecaster(
        intercept=np.stack(intercept, axis=1),
        past=np.stack(of_past, axis=2),
        clock=np.stack(of_clock, axis=1),
        weekday=np.stack(of_weekday, axis=1),
        planned=np.stack(of_planned, axis=1),
        residuals=np.stack(residuals),
        size_range=np.stack(ranges, axis=1),
    )


def _blocks(issue_step: Int[np.ndarray, " windows"], gap: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each block of time its windows, and those that share no step of the horizon with it, as masks."""
    edges = np.quantile(issue_step, np.linspace(0, 1, BLOCKS + 1))
    number = np.clip(np.searchsorted(edges, issue_step, side="right") - 1, 0, BLOCKS - 1)
    masks = []
    for block in range(BLOCKS):
        inside = number == block
        first, last = (issue_step[inside].min(), issue_step[inside].max()) if inside.any() else (0, -1)
        outside = (issue_step <= first - gap) | (issue_step >= last + gap)
        if not inside.any() or not outside.any():
            raise GapsError(f"{len(issue_step)} windows are too few for {BLOCKS} blocks that share no target hour")
        masks.append((inside, outside))
    return masks


def _fit_lead(
    columns: Float[np.ndarray, "windows columns"],
    truth: Float[np.ndarray, " windows"],
    blocks: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " windows"], Float[np.ndarray, " two"]]:
    """One lead time: intercepts (2,) and coefficients (2, columns) of target and log size, the scaled, cross-fitted
    residuals, and the range of the log size.
    """
    systems = [_System(columns[outside]) for _, outside in blocks]
    whole = _System(columns)
    crossed, penalty = _cross_fit(systems, columns, truth, blocks)
    residual = truth - crossed
    size = np.log(np.abs(residual) + SMALL_SHARE * np.abs(residual).mean() + np.finfo(float).tiny)
    crossed_size, penalty_of_size = _cross_fit(systems, columns, size, blocks)
    size_range = np.array([max(crossed_size.min(), size.min()), min(crossed_size.max(), size.max())])
    solutions = [whole.solve(truth, penalty), whole.solve(size, penalty_of_size)]
    intercepts, coefficients = (np.stack(parts) for parts in zip(*solutions, strict=True))
    return intercepts, coefficients, residual / np.exp(crossed_size.clip(*size_range)), size_range


class _System:
    """The normal equations of some windows, decomposed once for all penalties and targets."""

    def __init__(self, columns: Float[np.ndarray, "windows columns"]) -> None:
        self.mean, deviation = columns.mean(axis=0), columns.std(axis=0)
        self.scale = np.where(deviation > 1e-9, deviation, 1.0)
        self.standardised = (columns - self.mean) / self.scale
        self.values, self.vectors = np.linalg.eigh(self.standardised.T @ self.standardised)

    def projected(self, target: Float[np.ndarray, " windows"]) -> tuple[float, Float[np.ndarray, " columns"]]:
        """The target's mean, and its products with the columns in the basis of the eigenvectors."""
        centre = float(target.mean())
        return centre, self.vectors.T @ (self.standardised.T @ (target - centre))

    def solve(
        self, target: Float[np.ndarray, " windows"], penalty: float
    ) -> tuple[np.float64, Float[np.ndarray, " columns"]]:
        """Intercept and coefficients on the columns as they are."""
        centre, products = self.projected(target)
        coefficients = (self.vectors @ (products / (self.values + penalty))) / self.scale
        return np.float64(centre - self.mean @ coefficients), coefficients


def _cross_fit(
    systems: list[_System],
    columns: Float[np.ndarray, "windows columns"],
    target: Float[np.ndarray, " windows"],
    blocks: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[Float[np.ndarray, " windows"], float]:
    """Predictions of each block by the fit without it, with the best of the penalties, and that penalty."""
    predicted = np.empty((len(PENALTIES), len(target)))
    for system, (inside, outside) in zip(systems, blocks, strict=True):
        centre, products = system.projected(target[outside])
        rotated = ((columns[inside] - system.mean) / system.scale) @ system.vectors
        predicted[:, inside] = centre + (products / (system.values + PENALTIES[:, None])) @ rotated.T
    best = int(np.square(predicted - target).mean(axis=1).argmin())
    return predicted[best], float(PENALTIES[best])


def _quantiles_by_hour(
    scaled: Float[np.ndarray, " windows"], hour: Int[np.ndarray, " windows"]
) -> Float[np.ndarray, "hours levels"]:
    """Quantiles of scaled residuals at each hour of the day, taken with those of the hours before and after it."""
    every = np.quantile(scaled, QUANTILE_LEVELS)
    rows = []
    for centre in range(DAY_HOURS):
        near = np.isin(hour, [(centre + step) % DAY_HOURS for step in (-1, 0, 1)])
        rows.append(np.quantile(scaled[near], QUANTILE_LEVELS) if near.sum() >= LEAST_RESIDUALS else every)
    return np.stack(rows)
