"""The plots of verdict, monitor and backtest."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tutelage.forecasts import Contender, Forecasts
from tutelage.judge.ablation import HistoryRow, WithoutRow
from tutelage.judge.comparison import Gain
from tutelage.judge.metrics import LEVELS, Scores

COLOURS = {
    Contender.STUDENT: "#0b6e99",
    Contender.UNPRIVILEGED: "#c14c8a",
    Contender.TWIN: "#d9730d",
    Contender.UNTAUGHT: "#dfab01",
    Contender.TEACHER: "#6940a5",
    Contender.CHAMPION: "#0f7b6c",
    Contender.SEASONAL_NAIVE_24H: "#9b9a97",
    Contender.SEASONAL_NAIVE_168H: "#c4c4c0",
    Contender.LAST_VALUE: "#64473a",
    Contender.MEAN_OF_SEASONS: "#64473a",
    Contender.SAME_HOUR_7D: "#64473a",
    Contender.SAME_HOUR_14D: "#64473a",
    Contender.SAME_HOUR_28D: "#64473a",
    Contender.RIDGE: "#64473a",
}


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure outside of pyplot's global state, because tasks may draw at the same time."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _plain(axes)
    axes.set_axisbelow(True)
    return figure, axes


def _plain(axes: Axes) -> None:
    """Two spines and a light grid, as all plots have them."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)


def plot_fan(
    times: list[dt.datetime],
    forecasts: Forecasts,
    actual: Float[np.ndarray, " hours"],
    *,
    label: str,
    unit: str,
    title: str,
) -> Figure:
    """Median and central 50, 80 and 98 % intervals of consecutive hours, with the actual values.

    `forecasts` holds one window with as many hours as `times`.
    """
    figure, axes = _axes(10, 4)
    quantiles = forecasts.quantiles[0]

    def at(level: float) -> np.ndarray:
        return quantiles[:, int(np.argmin(np.abs(LEVELS - level)))]

    x: Any = times
    for low, high, alpha in ((0.01, 0.99, 0.15), (0.1, 0.9, 0.25), (0.25, 0.75, 0.35)):
        share = round((high - low) * 100)
        axes.fill_between(
            x, at(low), at(high), color=COLOURS[Contender.STUDENT], alpha=alpha, lw=0, label=f"{share} % interval"
        )
    axes.plot(x, at(0.5), color=COLOURS[Contender.STUDENT], lw=1.5, label="median")
    axes.plot(x, actual, color="black", lw=1.2, label="actual")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set(title=title, ylabel=f"{label} [{unit}]", xlabel="time [UTC]")
    axes.legend(ncols=5, loc="upper left", frameon=False, fontsize=8)
    axes.set_ylim(0 if actual.min() >= 0 else None, float(max(actual.max(), at(0.99).max())) * 1.25)
    return figure


def plot_reliability(shares: Mapping[Contender, Float[np.ndarray, " levels"]]) -> Figure:
    """The share of actual values at or below each quantile, for each forecast; a reliable one is on the diagonal."""
    figure, axes = _axes(5, 5)
    axes.plot([0, 1], [0, 1], color="black", lw=0.8, ls="--", label="ideal")
    for name, share in shares.items():
        axes.plot(LEVELS, share, color=COLOURS.get(name), lw=1.5, label=name.label)
    axes.set(
        title="Reliability",
        xlabel="quantile level",
        ylabel="share of actuals at or below",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def plot_skill(by_lead: Mapping[Contender, list[Scores]], *, reference: Contender, step_hours: float = 1) -> Figure:
    """CRPS skill over a reference forecast by lead time: 0 is no better, 1 is perfect; none over one without a loss."""
    figure, axes = _axes(8, 4)
    base = np.array([scores.crps or np.nan for scores in by_lead[reference]])
    axes.axhline(0, color="black", lw=0.8, ls="--")
    for name, rows in by_lead.items():
        if name != reference:
            skill = 1 - np.array([scores.crps for scores in rows]) / base
            leads = step_hours * np.arange(1, len(rows) + 1)
            axes.plot(leads, skill, color=COLOURS.get(name), marker="o", ms=3, lw=1.5, label=name.label)
    axes.set(
        title=f"CRPS skill over {reference.label}",
        xlabel="lead time [h]",
        ylabel="1 − CRPS / CRPS of reference",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plot_coverage(
    by_lead: Sequence[Scores], by_hour: Mapping[int, Scores], *, title: str, step_hours: float = 1
) -> Figure:
    """The share of actual values inside the 80 % interval by lead time and by hour of the day, 77 to 83 % shaded.

    by_lead: the first step first; with one lead time only the hours of the day are drawn
    """
    panels: dict[str, dict[float, Scores]] = {}
    if len(by_lead) > 1:
        panels["lead time [h]"] = {lead * step_hours: each for lead, each in enumerate(by_lead, start=1)}
    panels["hour of the day, local clock"] = {float(hour): each for hour, each in by_hour.items()}
    figure = Figure(figsize=(9, 3.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, scores) in zip(every, panels.items(), strict=True):
        shares = [100 * each.coverage_80 for each in scores.values()]
        axes.axhspan(77, 83, color="black", alpha=0.08, lw=0, label="77 to 83 %")
        axes.axhline(80, color="black", lw=0.8, ls="--")
        axes.plot(list(scores), shares, color=COLOURS[Contender.STUDENT], marker="o", ms=4, lw=1.5)
        axes.set(xlabel=label, ylim=(min(50, *shares) - 5, 100))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    every[0].set_ylabel("inside the 80 % interval [%]")
    every[-1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(title)
    return figure


def plot_losses(histories: Mapping[Contender, list[dict[str, float]]]) -> Figure:
    """Training (thin) and validation (thick) cross-entropy by epoch. Rows hold epoch, train and validation."""
    figure, axes = _axes(7, 4)
    for name, rows in histories.items():
        epochs = [row["epoch"] for row in rows]
        axes.plot(epochs, [row["train"] for row in rows], color=COLOURS.get(name), lw=0.8, alpha=0.6)
        axes.plot(
            epochs,
            [row["validation"] for row in rows],
            color=COLOURS.get(name),
            lw=1.8,
            label=name.label,
        )
    title = "Loss: validation thick, training thin (students: distillation loss)"
    axes.set(title=title, xlabel="epoch", ylabel="loss [nats per hour]")
    axes.legend(frameon=False, fontsize=8)
    return figure


def plot_health(
    days: list[dt.date],
    skill: list[float | None],
    coverage: list[float],
    *,
    least_skill: float,
    coverage_range: tuple[float, float],
    title: str,
) -> Figure:
    """Rolling skill over seasonal naive and rolling coverage by day, with the spec's limits."""
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    x: Any = days
    upper.plot(x, skill, color=COLOURS[Contender.STUDENT], marker="o", ms=3)
    upper.axhline(least_skill, color="black", lw=0.8, ls="--", label="least")
    upper.set(title=title, ylabel="CRPS skill over naive")
    lower.plot(x, coverage, color=COLOURS[Contender.CHAMPION], marker="o", ms=3)
    lower.axhspan(*coverage_range, color="black", alpha=0.06, label="allowed")
    lower.set(ylabel="inside 80 % interval", ylim=(0, 1), xlabel="day [UTC]")
    locator = AutoDateLocator()
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (upper, lower):
        _plain(axes)
        axes.legend(frameon=False, fontsize=8)
    return figure


def plot_backtest(
    origins: list[dt.datetime],
    crps: Mapping[Contender, list[float]],
    gains: Mapping[Contender, list[Gain]],
    *,
    unit: str,
    title: str,
) -> Figure:
    """CRPS of each forecast by origin, and below it the students' gain over each reference with its 95 % interval.

    gains: over each reference, one per origin
    """
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    x: Any = origins
    for name, values in crps.items():
        upper.plot(x, values, color=COLOURS.get(name), marker="o", ms=4, lw=1.5, label=name.label)
    upper.set(title=title, ylabel=f"CRPS [{unit}]")
    upper.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    lower.axhline(0, color="black", lw=0.8, ls="--")
    apart = (origins[-1] - origins[0]) / (40 * max(1, len(origins) - 1))
    for place, (reference, of_reference) in enumerate(gains.items()):
        estimate, low, high = np.array([[gain.estimate, gain.low, gain.high] for gain in of_reference]).T
        reach = [estimate - low, high - estimate]
        shifted: Any = [origin + place * apart for origin in origins]
        style = {"color": COLOURS.get(reference), "label": f"over {reference.label}"}
        lower.errorbar(shifted, estimate, yerr=reach, fmt="o", ms=4, capsize=3, **style)
    lower.set(ylabel="the students' gain", xlabel="origin [UTC]")
    lower.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    locator = AutoDateLocator()
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (upper, lower):
        _plain(axes)
    return figure


def plot_ablation(rows: Sequence[WithoutRow], history: Sequence[HistoryRow], *, unit: str, title: str) -> Figure:
    """What each privilege brought the students, with its 95 % interval; and CRPS by days of history, where tried."""
    panels = 2 if history else 1
    figure = Figure(figsize=(5.5 * panels, 1.6 + 0.5 * max(4, len(rows))), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, *right = np.atleast_1d(figure.subplots(1, panels))
    names = [row.label for row in rows]
    gains = [100 * row.student_gain.estimate for row in rows]
    reach = [
        [100 * (row.student_gain.estimate - row.student_gain.low) for row in rows],
        [100 * (row.student_gain.high - row.student_gain.estimate) for row in rows],
    ]
    left.errorbar(gains, range(len(rows)), xerr=reach, fmt="o", capsize=3, color=COLOURS[Contender.STUDENT])
    left.axvline(0, color="black", lw=0.8, ls="--")
    left.set_yticks(range(len(rows)), names)
    left.invert_yaxis()
    left.set(title=f"{title}: what each brought", xlabel="the students' gain from it [%]")
    for axes in right:
        days = [row.days for row in history]
        for name, values in (
            (Contender.STUDENT, [row.student_crps for row in history]),
            (Contender.TWIN, [row.twin_crps for row in history]),
        ):
            axes.plot(days, values, color=COLOURS[name], marker="o", ms=4, label=name.label)
        axes.axhline(history[-1].twin_crps, color=COLOURS[Contender.TWIN], lw=0.8, ls="--")
        axes.set(title="by days of history", xlabel="days", ylabel=f"CRPS [{unit}]")
        axes.legend(frameon=False, fontsize=8)
    for axes in (left, *right):
        _plain(axes)
    return figure
