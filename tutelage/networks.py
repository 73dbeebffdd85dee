"""Networks with a member axis: many of one shape, trained side by side as one batched product.

Members share their inputs and nothing else: each has its own weights, and the gradient of the sum of their losses is,
for each, the gradient of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tutelage.bodies import Shape, States, Transformer, make_body
from tutelage.heads import head_width
from tutelage.layers import MemberDropout, MemberLinear
from tutelage.windows import Panel, Span


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each column, in its unit, over the training part's hours."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def fit_scaler(values: Float[Tensor, "hours columns"]) -> Scaler:
    """Mean and standard deviation of the finite values, column by column; a constant column is divided by 1."""
    mean, std = [], []
    for column in values.double().unbind(dim=1):
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
    """Fit all scalers on the hours of the training part alone. All readings within an hour share one scale."""
    inside = (panel.hour >= train.hours.start) & (panel.hour < train.hours.stop)
    return Scalers(
        observed=fit_scaler(panel.observed[inside]),
        known=fit_scaler(panel.known[inside]),
        auxiliary=fit_scaler(panel.auxiliary[inside]),
        minutes=fit_scaler(panel.minutes[inside].reshape(-1, 1)),
    )


CALENDAR_ENCODED = 6


def encode_known(known: Float[Tensor, "batch horizon known"], scaler: Tensor) -> Float[Tensor, "batch horizon encoded"]:
    """Hour and weekday as points on a circle, weekend and holiday as 0 or 1, known columns standardised."""
    day = known[..., 0] * (2 * math.pi / 24)
    week = known[..., 1] * (2 * math.pi / 7)
    weekend = (known[..., 1] > 4.5).to(known.dtype)
    calendar = torch.stack([day.sin(), day.cos(), week.sin(), week.cos(), weekend, known[..., 2]], dim=-1)
    return torch.cat([calendar, (known[..., 3:] - scaler[0, 3:]) / scaler[1, 3:]], dim=-1)


class Forecaster(nn.Module):
    """From a window to what the shape's head puts out for each hour of the horizon, by the shape's architecture.

    The scaling of its inputs is part of it. With `privileged` values in its shape it is a teacher.
    """

    def __init__(self, shape: Shape, scalers: Scalers, members: int) -> None:
        super().__init__()
        self.observed_scaler: Tensor
        self.known_scaler: Tensor
        self.shape = shape
        self.register_buffer("observed_scaler", torch.tensor([scalers.observed.mean, scalers.observed.std]))
        self.register_buffer("known_scaler", torch.tensor([scalers.known.mean, scalers.known.std]))
        self.dropout = MemberDropout(members, shape.dropout)
        self.body = make_body(shape, CALENDAR_ENCODED + shape.known - 3, members, self.dropout)
        self.last = MemberLinear(members, shape.width, shape.horizon * head_width(shape.head, shape.bins))

    @property
    def members(self) -> int:
        """Networks side by side."""
        return self.last.weight.shape[0]

    def hidden(
        self,
        observed: Float[Tensor, "batch lookback observed"],
        known: Float[Tensor, "batch horizon known"],
        privileged: Float[Tensor, "batch privileged"] | None = None,
    ) -> Float[Tensor, "members batch width"]:
        """The last hidden state, which the head reads."""
        return self.body(*self._standardised(observed, known), privileged)

    def states(
        self,
        observed: Float[Tensor, "batch lookback observed"],
        known: Float[Tensor, "batch horizon known"],
        privileged: Float[Tensor, "batch privileged"] | None = None,
    ) -> States:
        """The last hidden state and, of a transformer, tokens and attention maps: what losses inside compare."""
        inputs = self._standardised(observed, known)
        if isinstance(self.body, Transformer):
            return self.body.states(*inputs, privileged)
        return States(self.body(*inputs, privileged))

    def _standardised(self, observed: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        past = (observed - self.observed_scaler[0]) / self.observed_scaler[1]
        return past, encode_known(known, self.known_scaler)

    def forward(
        self,
        observed: Float[Tensor, "batch lookback observed"],
        known: Float[Tensor, "batch horizon known"],
        privileged: Float[Tensor, "batch privileged"] | None = None,
    ) -> Float[Tensor, "members batch horizon values"]:
        """The head's outputs, such as logits over bins.

        `observed` and `known` come in their units, `privileged` as `views.privileged_values` gives it.
        """
        return self.read(self.hidden(observed, known, privileged))

    def read(self, hidden: Float[Tensor, "members batch width"]) -> Float[Tensor, "members batch horizon values"]:
        """The head's outputs from the last hidden state."""
        return self.last(hidden).unflatten(-1, (self.shape.horizon, -1))


def select_members(network: Forecaster, scalers: Scalers, chosen: Sequence[int]) -> Forecaster:
    """A network of these members, in this order; a member may be taken more than once."""
    rates, seeds = [network.dropout.rates[i] for i in chosen], network.dropout.seeds
    shape = replace(network.shape, dropout=rates[0]) if len(set(rates)) == 1 else network.shape
    copy = Forecaster(shape, scalers, len(chosen)).to(next(network.parameters()).device)
    copy.dropout.assign(rates, None if seeds is None else [seeds[i] for i in chosen])
    copy.load_state_dict(
        {
            name: value[list(chosen)] if name in dict(network.named_parameters()) else value
            for name, value in network.state_dict().items()
        }
    )
    return copy


def stack_members(networks: Sequence[Forecaster], scalers: Scalers) -> Forecaster:
    """One network of all the members of some, in their order: all of one shape, and with the same scalers."""
    first = networks[0]
    stacked = Forecaster(first.shape, scalers, sum(network.members for network in networks))
    weights = {
        name: torch.cat([network.get_parameter(name).detach() for network in networks])
        for name, _ in first.named_parameters()
    }
    stacked.load_state_dict(first.state_dict() | weights)
    return stacked.to(next(first.parameters()).device)
