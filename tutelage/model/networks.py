"""Networks with a member axis: many networks of one config, trained side by side in batched matrix products.

Members share only their inputs. Each has its own weights, so the gradient of the sum of the losses with respect to a
member's weights is the gradient of that member's loss.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tutelage.model.architectures import NetworkConfig, States, Transformer, make_architecture
from tutelage.model.heads import head_width, ordered_quantiles
from tutelage.model.layers import MemberDropout, MemberLinear
from tutelage.model.scaling import Scalers

CALENDAR_ENCODED = 6


def encode_known(known: Float[Tensor, "batch horizon known"], scaler: Tensor) -> Float[Tensor, "batch horizon encoded"]:
    """Hour and weekday as points on a circle, weekend and holiday as 0 or 1, known_future columns standardised."""
    day = known[..., 0] * (2 * math.pi / 24)
    week = known[..., 1] * (2 * math.pi / 7)
    weekend = (known[..., 1] > 4.5).to(known.dtype)
    calendar = torch.stack([day.sin(), day.cos(), week.sin(), week.cos(), weekend, known[..., 2]], dim=-1)
    return torch.cat([calendar, (known[..., 3:] - scaler[0, 3:]) / scaler[1, 3:]], dim=-1)


class Forecaster(nn.Module):
    """From a window to the head's outputs for each hour of the horizon, through the config's architecture.

    It standardises its inputs itself. With `privileged` values in its config it is a teacher.

    A recursive network forecasts one hour at a time; the mean of that forecast is the newest past hour of the next
    step. The loss covers all hours and its gradient passes through all steps, so training sees how errors accumulate.
    Source: Venkatraman et al. 2015, Improving Multi-Step Prediction of Learned Time Series Models; Bengio et al. 2015,
    arXiv:1506.03099, section 2.4, don't pass the gradient through the steps.
    """

    def __init__(self, config: NetworkConfig, scalers: Scalers, members: int) -> None:
        super().__init__()
        self.observed_scaler: Tensor
        self.known_scaler: Tensor
        self.centres: Tensor
        self.config = config
        self.register_buffer("observed_scaler", torch.tensor([scalers.observed.mean, scalers.observed.std]))
        self.register_buffer("known_scaler", torch.tensor([scalers.known.mean, scalers.known.std]))
        # Not persistent: the config holds them, and is saved next to the weights.
        self.register_buffer("centres", torch.tensor(config.centres), persistent=False)
        self.dropout = MemberDropout(members, config.dropout)
        at_once = replace(config, horizon=1) if config.recursive else config
        self.architecture = make_architecture(at_once, CALENDAR_ENCODED + config.known - 3, members, self.dropout)
        self.last = MemberLinear(members, config.width, at_once.horizon * head_width(config.head, config.bins))

    @property
    def members(self) -> int:
        """Number of networks."""
        return self.last.weight.shape[0]

    def hidden(
        self,
        observed: Float[Tensor, "batch lookback observed"],
        known: Float[Tensor, "batch horizon known"],
        privileged: Float[Tensor, "batch privileged"] | None = None,
    ) -> Float[Tensor, "members batch width"]:
        """The last hidden state, which the head reads; a recursive network concatenates those of all hours."""
        past, ahead = self._standardised(observed, known)
        return self._roll_out(past, ahead) if self.config.recursive else self.architecture(past, ahead, privileged)

    def states(
        self,
        observed: Float[Tensor, "batch lookback observed"],
        known: Float[Tensor, "batch horizon known"],
        privileged: Float[Tensor, "batch privileged"] | None = None,
    ) -> States:
        """The last hidden state and, for a transformer, tokens and attention maps, for losses on hidden states."""
        if isinstance(self.architecture, Transformer):
            return self.architecture.states(*self._standardised(observed, known), privileged)
        return States(self.hidden(observed, known, privileged))

    def _roll_out(
        self, past: Float[Tensor, "batch lookback 1"], ahead: Float[Tensor, "batch horizon encoded"]
    ) -> Float[Tensor, "members batch values"]:
        """The hidden states hour by hour; each hour's forecast becomes part of the next hour's past."""
        hidden = []
        for hour in ahead.split(1, dim=1):
            hidden.append(self.architecture(past, hour, None))
            mean = self._mean_of(self.last(hidden[-1]))[..., None, None]
            past = torch.cat([past[..., 1:, :].expand(self.members, -1, -1, -1), mean], dim=-2)
        return torch.cat(hidden, dim=-1)

    def _mean_of(self, outputs: Float[Tensor, "members batch values"]) -> Float[Tensor, "members batch"]:
        """The mean of one hour's forecast, standardised."""
        if self.config.head == "categorical":
            return (outputs.softmax(dim=-1) * self.centres).sum(dim=-1)
        if self.config.head == "point":
            return outputs.squeeze(-1)
        # Not mean(): its ONNX node would get the name of the exported output.
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

        `observed` and `known` are in their units, `privileged` is the result of `views.privileged_values`.
        """
        return self.read(self.hidden(observed, known, privileged))

    def read(self, hidden: Float[Tensor, "members batch width"]) -> Float[Tensor, "members batch horizon values"]:
        """The head's outputs from the last hidden state."""
        if self.config.recursive:
            return self.last(hidden.unflatten(-1, (self.config.horizon, -1)))
        return self.last(hidden).unflatten(-1, (self.config.horizon, -1))


def select_members(network: Forecaster, scalers: Scalers, chosen: Sequence[int]) -> Forecaster:
    """A network of the chosen members, in this order; a member may appear more than once."""
    rates, seeds = [network.dropout.rates[i] for i in chosen], network.dropout.seeds
    config = replace(network.config, dropout=rates[0]) if len(set(rates)) == 1 else network.config
    copy = Forecaster(config, scalers, len(chosen)).to(next(network.parameters()).device)
    copy.dropout.assign(rates, None if seeds is None else [seeds[i] for i in chosen])
    copy.load_state_dict(
        {
            name: value[list(chosen)] if name in dict(network.named_parameters()) else value
            for name, value in network.state_dict().items()
        }
    )
    return copy


def stack_members(networks: Sequence[Forecaster], scalers: Scalers) -> Forecaster:
    """One network with the members of several, in their order; all have the same config and scalers."""
    first = networks[0]
    stacked = Forecaster(first.config, scalers, sum(network.members for network in networks))
    weights = {
        name: torch.cat([network.get_parameter(name).detach() for network in networks])
        for name, _ in first.named_parameters()
    }
    stacked.load_state_dict(first.state_dict() | weights)
    return stacked.to(next(first.parameters()).device)
