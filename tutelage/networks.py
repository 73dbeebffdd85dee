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
from torch.nn import functional

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


@dataclass(frozen=True)
class Shape:
    """What a network is built from, and all that is needed to build it again.

    lookback, horizon: hours; observed, known: columns; privileged: values a window; width: units a hidden layer.
    """

    lookback: int
    horizon: int
    observed: int
    known: int
    privileged: int
    bins: int
    width: int
    dropout: float


CALENDAR_ENCODED = 6


def encode_known(known: Float[Tensor, "batch horizon known"], scaler: Tensor) -> Float[Tensor, "batch horizon encoded"]:
    """Hour and weekday as points on a circle, weekend and holiday as 0 or 1, known columns standardised."""
    day = known[..., 0] * (2 * math.pi / 24)
    week = known[..., 1] * (2 * math.pi / 7)
    weekend = (known[..., 1] > 4.5).to(known.dtype)
    calendar = torch.stack([day.sin(), day.cos(), week.sin(), week.cos(), weekend, known[..., 2]], dim=-1)
    return torch.cat([calendar, (known[..., 3:] - scaler[0, 3:]) / scaler[1, 3:]], dim=-1)


class MemberLinear(nn.Module):
    """(members, batch, inputs) or (batch, inputs) → (members, batch, outputs), each member with its own weights."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(inputs, 1))
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add, member by member."""
        if x.dim() == 2:
            x = x.expand(self.weight.shape[0], *x.shape)
        return torch.baddbmm(self.bias, x, self.weight)


class MemberDropout(nn.Module):
    """Dropout with a rate and, where seeds are given, random numbers of its own for each member.

    Without seeds all members have the same rate and torch's own random numbers. With them what a member drops depends
    on its seed and the epoch alone: not on who is trained beside it, nor on where a run was interrupted. Members of
    one seed drop by the same numbers, so that a student and its twin differ in what they are taught alone.
    """

    def __init__(self, members: int, rate: float) -> None:
        super().__init__()
        self.rates: tuple[float, ...] = (rate,) * members
        self.seeds: tuple[int, ...] | None = None
        self._generators: dict[int, torch.Generator] = {}

    def assign(self, rates: Sequence[float], seeds: Sequence[int] | None) -> None:
        """Give each member its rate and its seed."""
        self.rates, self.seeds = tuple(rates), None if seeds is None else tuple(seeds)

    def restart(self, epoch: int, device: torch.device) -> None:
        """Set the members' random numbers to the start of an epoch."""
        # A seed has 31 bits and an epoch fewer than 20: no two pairs meet.
        self._generators = {
            seed: torch.Generator(device).manual_seed((seed << 20) + epoch) for seed in set(self.seeds or ())
        }

    def forward(self, x: Float[Tensor, "members batch *rest"]) -> Float[Tensor, "members batch *rest"]:
        """Drop, and scale up what is left, while training."""
        if not self.training or not any(self.rates):
            return x
        if self.seeds is None:
            return functional.dropout(x, self.rates[0])
        if not self._generators:
            self.restart(0, x.device)
        noise = {s: torch.rand(x.shape[1:], generator=g, device=x.device) for s, g in self._generators.items()}
        kept = [(noise[s] >= rate).to(x.dtype) / (1 - rate) for s, rate in zip(self.seeds, self.rates, strict=True)]
        return x * torch.stack(kept)


class Forecaster(nn.Module):
    """A multi-layer perceptron from a window to logits over the bins of each hour of the horizon.

    The scaling of its inputs is part of it. With `privileged` values in its shape it is a teacher.
    """

    def __init__(self, shape: Shape, scalers: Scalers, members: int) -> None:
        super().__init__()
        self.observed_scaler: Tensor
        self.known_scaler: Tensor
        self.shape = shape
        self.register_buffer("observed_scaler", torch.tensor([scalers.observed.mean, scalers.observed.std]))
        self.register_buffer("known_scaler", torch.tensor([scalers.known.mean, scalers.known.std]))
        encoded = CALENDAR_ENCODED + shape.known - 3
        inputs = shape.lookback * shape.observed + shape.horizon * encoded + shape.privileged
        self.first = MemberLinear(members, inputs, shape.width)
        self.second = MemberLinear(members, shape.width, shape.width)
        self.last = MemberLinear(members, shape.width, shape.horizon * shape.bins)
        self.dropout = MemberDropout(members, shape.dropout)

    @property
    def members(self) -> int:
        """Networks side by side."""
        return self.first.weight.shape[0]

    def forward(
        self,
        observed: Float[Tensor, "batch lookback observed"],
        known: Float[Tensor, "batch horizon known"],
        privileged: Float[Tensor, "batch privileged"] | None = None,
    ) -> Float[Tensor, "members batch horizon bins"]:
        """Logits; `observed` and `known` in their units, `privileged` as `views.privileged_values` gives it."""
        past = (observed - self.observed_scaler[0]) / self.observed_scaler[1]
        x = torch.cat([past.flatten(1), encode_known(known, self.known_scaler).flatten(1)], dim=1)
        if privileged is not None:
            x = torch.cat([x, privileged], dim=1)
        for layer in (self.first, self.second):
            x = self.dropout(functional.relu(layer(x)))
        return self.last(x).unflatten(-1, (self.shape.horizon, self.shape.bins))


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
