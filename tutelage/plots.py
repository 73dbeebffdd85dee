"""The plots of a verdict: forecast fan over actuals, reliability, skill by lead time, loss curves."""

import datetime as dt
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tutelage.metrics import LEVELS, Forecasts

COLOURS = {
    "student": "#0b6e99",
    "no_privilege": "#c14c8a",
    "twin": "#d9730d",
    "teacher": "#6940a5",
    "champion": "#0f7b6c",
    "seasonal_naive_24h": "#9b9a97",
    "seasonal_naive_168h": "#c4c4c0",
}


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure outside of pyplot's global state: tasks may draw at the same time."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _readable(name: str) -> str:
    return name.replace("_", " ")


def plot_fan(
    times: list[dt.datetime],
    forecasts: Forecasts,
    actual: Float[np.ndarray, " hours"],
    *,
    label: str,
    unit: str,
    title: str,
) -> Figure:
    """Median and central 50, 80 and 98 % intervals of consecutive hours over what came true.

    `forecasts` holds one window of as many hours as `times`.
    """
    figure, axes = _axes(10, 4)
    quantiles = forecasts.quantiles[0]

    def at(level: float) -> np.ndarray:
        return quantiles[:, int(np.argmin(np.abs(LEVELS - level)))]

    x: Any = times
    for low, high, alpha in ((0.01, 0.99, 0.15), (0.1, 0.9, 0.25), (0.25, 0.75, 0.35)):
        share = round((high - low) * 100)
        axes.fill_between(
            x, at(low), at(high), color=COLOURS["student"], alpha=alpha, lw=0, label=f"{share} % interval"
        )
    axes.plot(x, at(0.5), color=COLOURS["student"], lw=1.5, label="median")
    axes.plot(x, actual, color="black", lw=1.2, label="actual")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set(title=title, ylabel=f"{label} [{unit}]", xlabel="time [UTC]")
    axes.legend(ncols=5, loc="upper left", frameon=False, fontsize=8)
    axes.set_ylim(0 if actual.min() >= 0 else None, float(max(actual.max(), at(0.99).max())) * 1.25)
    return figure


def plot_reliability(shares: dict[str, Float[np.ndarray, " levels"]]) -> Figure:
    """How often the truth stayed at or below each quantile, for each forecast: on the diagonal is right."""
    figure, axes = _axes(5, 5)
    axes.plot([0, 1], [0, 1], color="black", lw=0.8, ls="--", label="ideal")
    for name, share in shares.items():
        axes.plot(LEVELS, share, color=COLOURS.get(name), lw=1.5, label=_readable(name))
    axes.set(
        title="Reliability",
        xlabel="quantile level",
        ylabel="share of actuals at or below",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def plot_skill(by_lead: dict[str, list[dict[str, float]]], *, reference: str) -> Figure:
    """CRPS skill over a reference forecast by lead time: 0 is no better, 1 perfect."""
    figure, axes = _axes(8, 4)
    base = np.array([row["crps"] for row in by_lead[reference]])
    axes.axhline(0, color="black", lw=0.8, ls="--")
    for name, rows in by_lead.items():
        if name != reference:
            lead = [row["lead_hours"] for row in rows]
            skill = 1 - np.array([row["crps"] for row in rows]) / base
            axes.plot(lead, skill, color=COLOURS.get(name), marker="o", ms=3, lw=1.5, label=_readable(name))
    axes.set(
        title=f"CRPS skill over {_readable(reference)}",
        xlabel="lead time [h]",
        ylabel="1 − CRPS / CRPS of reference",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plot_losses(histories: dict[str, list[dict[str, float]]]) -> Figure:
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
            label=_readable(name),
        )
    title = "Loss: validation thick, training thin (the student's: of its distillation)"
    axes.set(title=title, xlabel="epoch", ylabel="loss [nats an hour]")
    axes.legend(frameon=False, fontsize=8)
    return figure


def plot_health(
    days: list[dt.date],
    skill: list[float],
    coverage: list[float],
    *,
    least_skill: float,
    coverage_range: tuple[float, float],
    title: str,
) -> Figure:
    """Rolling skill over seasonal naive and rolling coverage by day, with what the spec asks of both."""
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    x: Any = days
    upper.plot(x, skill, color=COLOURS["student"], marker="o", ms=3)
    upper.axhline(least_skill, color="black", lw=0.8, ls="--", label="least")
    upper.set(title=title, ylabel="CRPS skill over naive")
    lower.plot(x, coverage, color=COLOURS["champion"], marker="o", ms=3)
    lower.axhspan(*coverage_range, color="black", alpha=0.06, label="allowed")
    lower.set(ylabel="inside 80 % interval", ylim=(0, 1), xlabel="day [UTC]")
    locator = AutoDateLocator()
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8)
    return figure


def plot_backtest(
    origins: list[dt.datetime],
    crps: dict[str, list[float]],
    gains: dict[str, dict[str, list[float]]],
    *,
    unit: str,
    title: str,
) -> Figure:
    """The CRPS of each forecast by origin, and below the student's gain over each rival with its 95 % interval.

    gains: rival → estimate, low and high, one value an origin
    """
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    x: Any = origins
    for name, values in crps.items():
        upper.plot(x, values, color=COLOURS.get(name), marker="o", ms=4, lw=1.5, label=_readable(name))
    upper.set(title=title, ylabel=f"CRPS [{unit}]")
    upper.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    lower.axhline(0, color="black", lw=0.8, ls="--")
    apart = (origins[-1] - origins[0]) / (40 * max(1, len(origins) - 1))
    for place, (rival, gain) in enumerate(gains.items()):
        estimate, low, high = (np.array(gain[name]) for name in ("estimate", "low", "high"))
        # A bootstrap's interval need not hold its estimate: an error bar has no negative length.
        reach = np.maximum([estimate - low, high - estimate], 0)
        beside: Any = [origin + place * apart for origin in origins]
        style = {"color": COLOURS.get(rival), "label": f"over {_readable(rival)}"}
        lower.errorbar(beside, estimate, yerr=reach, fmt="o", ms=4, capsize=3, **style)
    lower.set(ylabel="the student's gain", xlabel="origin [UTC]")
    lower.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    locator = AutoDateLocator()
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.6)
    return figure
