"""The architectures: from a standardised window to the last hidden state, each with a member axis.

All take (past, ahead, privileged): (batch, lookback, observed), (batch, horizon, encoded calendar and known columns)
and (batch, privileged) or None, and give (members, batch, width). An Mlp takes a past of each member's own, too.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from tutelage.layers import MemberAttention, MemberConv, MemberDropout, MemberLinear
from tutelage.recipe import Architecture, Head


@dataclass(frozen=True)
class Shape:
    """What a network is built from, and all that is needed to build it again.

    lookback, horizon: hours; observed, known: columns; privileged: values a window; width: units a hidden layer
    rolled: one hour is forecast at a time, from what was forecast for the hours before
    centres: means of the bins, in the target's standard deviations, which a rolled categorical head goes on from
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
    rolled: bool = False
    centres: tuple[float, ...] = ()


@dataclass(frozen=True)
class States:
    """What networks hold inside; tokens and maps are there for transformers alone.

    Of an ensemble that teaches, hidden states and tokens stand side by side in one member, and maps are averaged.

    hidden: (members, batch, width), the last hidden state
    tokens: (members, batch, tokens, width), after the last layer, without the token that only a teacher has
    maps: (members, batch, heads, tokens, tokens), the last layer's attention among these tokens; rows sum to 1
    """

    hidden: Float[Tensor, "members batch width"]
    tokens: Float[Tensor, "members batch tokens token_width"] | None = None
    maps: Float[Tensor, "members batch heads tokens tokens"] | None = None

    def at(self, index: Any) -> "States":
        """The same of some members and windows."""
        chosen: dict[str, Any] = {n: None if value is None else value[index] for n, value in vars(self).items()}
        return States(**chosen)


TREND_HOURS = 25
PATCH_HOURS = 24
HEADS = 4
LAYERS = 2
KERNEL = 3


def _beside(features: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
    """Features of a window with all that is known ahead, and what a teacher sees, beside them: a member axis each."""
    flat = [ahead.flatten(1)] + ([] if privileged is None else [privileged])
    if features.dim() == 2:
        return torch.cat([features, *flat], dim=1)
    return torch.cat([features, *(part.expand(features.shape[0], -1, -1) for part in flat)], dim=-1)


class Mlp(nn.Module):
    """Two hidden layers on the flat window."""

    def __init__(self, shape: Shape, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        inputs = shape.lookback * shape.observed + shape.horizon * encoded + shape.privileged
        self.first = MemberLinear(members, inputs, shape.width)
        self.second = MemberLinear(members, shape.width, shape.width)
        self.dropout = dropout

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        """(members, batch, width)."""
        x = _beside(past.flatten(-2), ahead, privileged)
        for layer in (self.first, self.second):
            x = self.dropout(functional.relu(layer(x)))
        return x


class Linear(nn.Module):
    """Trend and remainder apart, and no bend anywhere: the logits are linear in the window, of rank `width`.

    Source: DLinear, Zeng et al. 2023, arXiv:2205.13504, section 4.
    """

    def __init__(self, shape: Shape, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        # An odd number of hours, so that a moving mean has a middle.
        self.hours = min(TREND_HOURS, shape.lookback - (shape.lookback + 1) % 2)
        inputs = 2 * shape.lookback * shape.observed + shape.horizon * encoded + shape.privileged
        self.first = MemberLinear(members, inputs, shape.width)
        self.dropout = dropout

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        """(members, batch, width)."""
        by_column, half = past.transpose(1, 2), self.hours // 2
        ends = [by_column[..., :1].expand(-1, -1, half), by_column, by_column[..., -1:].expand(-1, -1, half)]
        trend = functional.avg_pool1d(torch.cat(ends, dim=-1), self.hours, stride=1)
        both = torch.cat([trend, by_column - trend], dim=1).flatten(1)
        return self.dropout(self.first(_beside(both, ahead, privileged)))


class Tcn(nn.Module):
    """Causal convolutions, each reaching twice as far as the one before, until the last step sees the whole past.

    Source: temporal convolutional network, Bai et al. 2018, arXiv:1803.01271.
    """

    def __init__(self, shape: Shape, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        self.members, self.channels = members, max(shape.width // 4, 1)
        # Layers that halve the time see 1 + (kernel - 1) · (2^layers - 1) steps.
        layers = max(1, math.ceil(math.log2((shape.lookback - 1) / (KERNEL - 1) + 1)))
        self.steps = nn.ModuleList(
            MemberConv(members, self.channels if layer else shape.observed, self.channels, kernel=KERNEL)
            for layer in range(layers)
        )
        self.joined = MemberLinear(members, self.channels + shape.horizon * encoded + shape.privileged, shape.width)
        self.dropout = dropout

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        """(members, batch, width)."""
        x = past.transpose(1, 2).repeat(1, self.members, 1)
        for number, step in enumerate(self.steps):
            further = functional.gelu(step(x))
            x = x[..., (x.shape[-1] - 1) % 2 :: 2] + further if number else further
        last = x[..., -1].unflatten(1, (self.members, self.channels)).transpose(0, 1)
        return self.dropout(functional.relu(self.joined(_beside(last, ahead, privileged))))


def _model_width(shape: Shape) -> int:
    """The width of a token: half the network's, and a multiple of the heads."""
    return max(shape.width // 2 // HEADS, 1) * HEADS


class Transformer(nn.Module):
    """What attends: its states can be taught, token by token."""

    def states(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> States:
        """The last hidden state, the tokens that led to it, and who attended to whom."""
        raise NotImplementedError

    def forward(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> Tensor:
        """(members, batch, width)."""
        return self.states(past, ahead, privileged).hidden


class Patch(Transformer):
    """A small transformer over the past's days as tokens; the past's first hours that fill no day belong to the first.

    Source: PatchTST, Nie et al. 2023, arXiv:2211.14730 (here with all columns in one token).
    """

    def __init__(self, shape: Shape, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        width = _model_width(shape)
        self.members, self.patch = members, min(PATCH_HOURS, shape.lookback)
        self.tokens = math.ceil(shape.lookback / self.patch)
        self.missing = self.tokens * self.patch - shape.lookback
        self.embedding = MemberLinear(members, self.patch * shape.observed, width)
        self.place = nn.Parameter(0.02 * torch.randn(members, 1, self.tokens, width))
        self.layers = nn.ModuleList(MemberAttention(members, width, HEADS, dropout) for _ in range(LAYERS))
        self.joined = MemberLinear(
            members, self.tokens * width + shape.horizon * encoded + shape.privileged, shape.width
        )
        self.dropout = dropout

    def states(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> States:
        """The tokens are the past's days."""
        # Zeros stand before the past: standardised, that is the mean.
        whole = functional.pad(past, (0, 0, self.missing, 0))
        patches = whole.unflatten(1, (self.tokens, self.patch)).flatten(2)
        x = self.embedding(patches.expand(self.members, *patches.shape)) + self.place
        for layer in self.layers:
            x, maps = layer(x)
        hidden = self.dropout(functional.relu(self.joined(_beside(x.flatten(2), ahead, privileged))))
        return States(hidden, x, maps)


class Inverted(Transformer):
    """A small transformer with variables as tokens: each column's past, each known column's future, the privileged.

    Source: iTransformer, Liu et al. 2024, arXiv:2310.06625.
    """

    def __init__(self, shape: Shape, encoded: int, members: int, dropout: MemberDropout) -> None:
        super().__init__()
        width = _model_width(shape)
        self.members = members
        self.of_past = MemberLinear(members, shape.lookback, width)
        self.of_ahead = MemberLinear(members, shape.horizon, width)
        self.of_privileged = MemberLinear(members, shape.privileged, width) if shape.privileged else None
        tokens = shape.observed + encoded + (shape.privileged > 0)
        self.place = nn.Parameter(0.02 * torch.randn(members, 1, tokens, width))
        self.layers = nn.ModuleList(MemberAttention(members, width, HEADS, dropout) for _ in range(LAYERS))
        self.joined = MemberLinear(members, width, shape.width)
        self.dropout = dropout

    def states(self, past: Tensor, ahead: Tensor, privileged: Tensor | None) -> States:
        """The hidden state is from the target's token, the first, once it has seen all others.

        The tokens are the observed columns and what is known ahead; a teacher's last one, of all that is privileged, is
        left out, and the maps say how attention is shared among the others.
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


Body = type[Mlp] | type[Linear] | type[Tcn] | type[Patch] | type[Inverted]
BODIES: dict[Architecture, Body] = {"mlp": Mlp, "linear": Linear, "tcn": Tcn, "patch": Patch, "inverted": Inverted}


def make_body(shape: Shape, encoded: int, members: int, dropout: MemberDropout) -> nn.Module:
    """The shape's architecture for windows with `encoded` values an hour ahead."""
    return BODIES[shape.architecture](shape, encoded, members, dropout)
