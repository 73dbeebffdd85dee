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
from tutelage.heads import head_width, ordered_quantiles
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

    A rolled one forecasts one hour at a time, and the mean of what it has just said is the newest hour of the next
    one's past: trained on all hours, it is taught what its errors grow to, since the gradient goes through all steps.
    Source: Venkatraman et al. 2015, Improving Multi-Step Prediction of Learned Time Series Models; the gradient as in
    Bengio et al. 2015, arXiv:1506.03099, section 2.4, which leaves it out.
    """

    def __init__(self, shape: Shape, scalers: Scalers, members: int) -> None:
        super().__init__()
        self.observed_scaler: Tensor
        self.known_scaler: Tensor
        self.centres: Tensor
        self.shape = shape
        self.register_buffer("observed_scaler", torch.tensor([scalers.observed.mean, scalers.observed.std]))
        self.register_buffer("known_scaler", torch.tensor([scalers.known.mean, scalers.known.std]))
        # Of the shape, which is saved beside the weights.
        self.register_buffer("centres", torch.tensor(shape.centres), persistent=False)
        self.dropout = MemberDropout(members, shape.dropout)
        at_once = replace(shape, horizon=1) if shape.rolled else shape
        self.body = make_body(at_once, CALENDAR_ENCODED + shape.known - 3, members, self.dropout)
        self.last = MemberLinear(members, shape.width, at_once.horizon * head_width(shape.head, shape.bins))

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
        """The last hidden state, which the head reads; of a rolled network those of all hours, side by side."""
        past, ahead = self._standardised(observed, known)
        return self._roll_out(past, ahead) if self.shape.rolled else self.body(past, ahead, privileged)

    def states(
        self,
        observed: Float[Tensor, "batch lookback observed"],
        known: Float[Tensor, "batch horizon known"],
        privileged: Float[Tensor, "batch privileged"] | None = None,
    ) -> States:
        """The last hidden state and, of a transformer, tokens and attention maps: what losses inside compare."""
        if isinstance(self.body, Transformer):
            return self.body.states(*self._standardised(observed, known), privileged)
        return States(self.hidden(observed, known, privileged))

    def _roll_out(
        self, past: Float[Tensor, "batch lookback 1"], ahead: Float[Tensor, "batch horizon encoded"]
    ) -> Float[Tensor, "members batch values"]:
        """Hour by hour, each from what the ones before made of the past."""
        hidden = []
        for hour in ahead.split(1, dim=1):
            hidden.append(self.body(past, hour, None))
            mean = self._mean_of(self.last(hidden[-1]))[..., None, None]
            past = torch.cat([past[..., 1:, :].expand(self.members, -1, -1, -1), mean], dim=-2)
        return torch.cat(hidden, dim=-1)

    def _mean_of(self, outputs: Float[Tensor, "members batch values"]) -> Float[Tensor, "members batch"]:
        """The mean of one hour's forecast, standardised."""
        if self.shape.head == "categorical":
            return (outputs.softmax(dim=-1) * self.centres).sum(dim=-1)
        if self.shape.head == "point":
            return outputs.squeeze(-1)
        # Not mean(): its node in ONNX would have the name that the export gives the forecast.
        return ordered_quantiles(outputs).sum(dim=-1) / outputs.shape[-1]

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
        if self.shape.rolled:
            return self.last(hidden.unflatten(-1, (self.shape.horizon, -1)))
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
