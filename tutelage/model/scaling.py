"""Scaling by mean and standard deviation, fitted only on the training part."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tutelage.data.windows import Panel, Span


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each column, in its unit, over the training part's hours."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def fit_scaler(values: Float[Tensor, "hours columns"]) -> Scaler:
    """Mean and standard deviation of the finite values by column; a constant column gets a deviation of 1."""
    mean, std = [], []
    # On the CPU: not every device has float64.
    for column in values.cpu().double().unbind(dim=1):
        finite = column[column.isfinite()]
        mean.append(float(finite.mean()) if len(finite) else 0.0)
        deviation = float(finite.std()) if len(finite) > 1 else 0.0
        std.append(deviation if deviation > 1e-9 else 1.0)
    return Scaler(tuple(mean), tuple(std))


@dataclass(frozen=True)
class Scalers:
    """The scalers of a panel's four kinds of values."""

    observed: Scaler
    known: Scaler
    auxiliary: Scaler
    minutes: Scaler


def fit_scalers(panel: Panel, train: Span) -> Scalers:
    """Fit all scalers on the steps of the training part. All readings within a step share one scale."""
    steps = train.steps(panel.grid)
    inside = (panel.step >= steps.start) & (panel.step < steps.stop)
    return Scalers(
        observed=fit_scaler(panel.observed[inside]),
        known=fit_scaler(panel.known[inside]),
        auxiliary=fit_scaler(panel.auxiliary[inside]),
        minutes=fit_scaler(panel.minutes[inside].reshape(-1, 1)),
    )
