"""The architectures: from a standardised window to the last hidden state, each with a member axis.

All take (past, ahead, privileged): (batch, lookback, observed), (batch, horizon, encoded calendar and known columns)
and (batch, privileged) or None, and return (members, batch, width). An Mlp also takes a past with a member axis.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from tutelage.model.kinds import Architecture, Head
from tutelage.model.layers import MemberAttention, MemberConv, MemberDropout, MemberLinear, drawn_normally


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that is needed to build a network.

    lookback, horizon: hours; observed, known: columns; privileged: values per window; width: units per hidden layer
    recursive: forecast one hour at a time, each from the forecasts of the hours before
    centres: means of the bins, in the target's standard deviations; a recursive categorical head computes its mean
        from them
    """

    lookback: int
    horizon: int
    observed: int
    known: int
    privileged: int
    bins: int
    width: int
    dropout: float
    architecture: Architecture = "mlp"
    head: Head = "categorical"
    recursive: bool = False
    centres: tuple[float, ...] = ()


@dataclass(frozen=True)
class States:
    """The hidden states of networks; only transformers have tokens and maps.

    The states of a teacher ensemble have one member: hidden states and tokens are concatenated, maps averaged.

    hidden: (members, batch, width), the last hidden state
    tokens: (members, batch, tokens, width), after the last layer, without the token that only a teacher has
    maps: (members, batch, heads, tokens, tokens), the last layer's attention between these tokens; rows sum to 1
    """

    hidden: Float[Tensor, "members batch width"]
    tokens: Float[Tensor, "members batch tokens token_width"] | None = None
    maps: Float[Tensor, "members batch heads tokens tokens"] | None = None

    def at(self, index: Any) -> "States":
        """The states of selected members and windows, by any tensor index."""
        chosen: dict[str, Any] = {n: None if value is None else value[index] for n, value in vars(self).items()}
        return States(**chosen)


TREND_HOURS = 25
PATCH_HOURS = 24
HEADS = 4
LAYERS = 2
KERNEL = 3


def _with_known(features: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
    """Features of a window, joined with the known future and, for a teacher, the privileged values.

    (batch, features) or (members, batch, features) → the same shape with more features.
    """
    flat = [ahead.flatten(1)] + ([] if privileged is None else [privileged])
    if features.dim() == 2:
        return torch.cat([features, *flat], dim=1)
    return torch.cat([features, *(part.expand(features.shape[0], -1, -1) for part in flat)], dim=-1)


class Mlp(nn.Module):
    """Two hidden layers on the flat window."""

    def __init__(self, config: NetworkConfig, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        inputs = config.lookback * config.observed + config.horizon * encoded + config.privileged
        self.first = MemberLinear(members, inputs, config.width)
        self.second = MemberLinear(members, config.width, config.width)
        self.dropout = dropout

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        """(members, batch, width)."""
        x = _with_known(past.flatten(-2), ahead, privileged)
        for layer in (self.first, self.second):
            x = self.dropout(functional.relu(layer(x)))
        return x


class Linear(nn.Module):
    """Trend and remainder as separate inputs of a linear map: the logits are linear in the window, of rank `width`.

    Source: DLinear, Zeng et al. 2023, arXiv:2205.13504, section 4.
    """

    def __init__(self, config: NetworkConfig, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        # An odd number of hours, so that the moving mean has a middle.
        self.hours = min(TREND_HOURS, config.lookback - (config.lookback + 1) % 2)
        inputs = 2 * config.lookback * config.observed + config.horizon * encoded + config.privileged
        self.first = MemberLinear(members, inputs, config.width)
        self.dropout = dropout

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        """(members, batch, width)."""
        by_column, half = past.transpose(1, 2), self.hours // 2
        ends = [by_column[..., :1].expand(-1, -1, half), by_column, by_column[..., -1:].expand(-1, -1, half)]
        trend = functional.avg_pool1d(torch.cat(ends, dim=-1), self.hours, stride=1)
        both = torch.cat([trend, by_column - trend], dim=1).flatten(1)
        return self.dropout(self.first(_with_known(both, ahead, privileged)))


class Tcn(nn.Module):
    """Causal convolutions, each with twice the reach of the one before, until the last step sees the whole past.

    Source: temporal convolutional network, Bai et al. 2018, arXiv:1803.01271.
    """

    def __init__(self, config: NetworkConfig, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        self.members, self.channels = members, max(config.width // 4, 1)
        # Layers that halve the time see 1 + (kernel - 1) · (2^layers - 1) steps.
        layers = max(1, math.ceil(math.log2((config.lookback - 1) / (KERNEL - 1) + 1)))
        self.steps = nn.ModuleList(
            MemberConv(members, self.channels if layer else config.observed, self.channels, kernel=KERNEL)
            for layer in range(layers)
        )
        self.joined = MemberLinear(members, self.channels + config.horizon * encoded + config.privileged, config.width)
        self.dropout = dropout

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        """(members, batch, width)."""
        x = past.transpose(1, 2).repeat(1, self.members, 1)
        for number, step in enumerate(self.steps):
            further = functional.gelu(step(x))
            x = x[..., (x.shape[-1] - 1) % 2 :: 2] + further if number else further
        last = x[..., -1].unflatten(1, (self.members, self.channels)).transpose(0, 1)
        return self.dropout(functional.relu(self.joined(_with_known(last, ahead, privileged))))


def _model_width(config: NetworkConfig) -> int:
    """The width of a token: half the network's, rounded down to a multiple of the heads."""
    return max(config.width // 2 // HEADS, 1) * HEADS


class Transformer(nn.Module):
    """A network with attention: distillation can also compare its tokens and attention maps."""

    def states(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> States:
        """The last hidden state, the tokens and the attention maps."""
        raise NotImplementedError

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        """(members, batch, width)."""
        return self.states(past, ahead, privileged).hidden


class Patch(Transformer):
    """A small transformer with the days of the past as tokens; zeros complete the first day.

    Source: PatchTST, Nie et al. 2023, arXiv:2211.14730 (here with all columns in one token).
    """

    def __init__(self, config: NetworkConfig, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        width = _model_width(config)
        self.members, self.patch = members, min(PATCH_HOURS, config.lookback)
        self.tokens = math.ceil(config.lookback / self.patch)
        self.missing = self.tokens * self.patch - config.lookback
        self.embedding = MemberLinear(members, self.patch * config.observed, width)
        self.place = drawn_normally(0.02, members, 1, self.tokens, width)
        self.layers = nn.ModuleList(MemberAttention(members, width, HEADS, dropout) for _ in range(LAYERS))
        self.joined = MemberLinear(
            members, self.tokens * width + config.horizon * encoded + config.privileged, config.width
        )
        self.dropout = dropout

    def states(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> States:
        """The tokens are the past's days."""
        # A standardised value of 0 is the mean.
        whole = functional.pad(past, (0, 0, self.missing, 0))
        patches = whole.unflatten(1, (self.tokens, self.patch)).flatten(2)
        x = self.embedding(patches.expand(self.members, *patches.shape)) + self.place
        for layer in self.layers:
            x, maps = layer(x)
        hidden = self.dropout(functional.relu(self.joined(_with_known(x.flatten(2), ahead, privileged))))
        return States(hidden, x, maps)


class Inverted(Transformer):
    """A small transformer with variables as tokens: each column's past, each known column's future, the privileged.

    Source: iTransformer, Liu et al. 2024, arXiv:2310.06625.
    """

    def __init__(self, config: NetworkConfig, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        width = _model_width(config)
        self.members = members
        self.of_past = MemberLinear(members, config.lookback, width)
        self.of_ahead = MemberLinear(members, config.horizon, width)
        self.of_privileged = MemberLinear(members, config.privileged, width) if config.privileged else None
        tokens = config.observed + encoded + (config.privileged > 0)
        self.place = drawn_normally(0.02, members, 1, tokens, width)
        self.layers = nn.ModuleList(MemberAttention(members, width, HEADS, dropout) for _ in range(LAYERS))
        self.joined = MemberLinear(members, width, config.width)
        self.dropout = dropout

    def states(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> States:
        """The hidden state comes from the first token, the target's, after it has attended to all others.

        The tokens are the observed columns and the known columns. A teacher's last token, which holds all privileged
        values, is left out, and the rows of the maps are rescaled to sum to 1 without it.
        """
        columns, known = past.transpose(1, 2), ahead.transpose(1, 2)
        tokens = [
            self.of_past(columns.expand(self.members, *columns.shape)),
            self.of_ahead(known.expand(self.members, *known.shape)),
        ]
        if privileged is not None and self.of_privileged is not None:
            tokens.append(self.of_privileged(privileged).unsqueeze(2))
        x = torch.cat(tokens, dim=2) + self.place
        for layer in self.layers:
            x, maps = layer(x)
        hidden = self.dropout(functional.relu(self.joined(x[:, :, 0])))
        if self.of_privileged is None:
            return States(hidden, x, maps)
        shared = maps[..., :-1, :-1]
        return States(hidden, x[:, :, :-1], shared / shared.sum(dim=-1, keepdim=True))


ArchitectureClass = type[Mlp] | type[Linear] | type[Tcn] | type[Patch] | type[Inverted]
ARCHITECTURES: dict[Architecture, ArchitectureClass] = {
    "mlp": Mlp,
    "linear": Linear,
    "tcn": Tcn,
    "patch": Patch,
    "inverted": Inverted,
}


def make_architecture(config: NetworkConfig, encoded: int, members: int, dropout: MemberDropout) -> nn.Module:
    """The config's architecture for windows with `encoded` known values per hour."""
    return ARCHITECTURES[config.architecture](config, encoded, members, dropout)
