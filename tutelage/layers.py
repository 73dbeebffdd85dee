"""Layers with a member axis: many networks' weights side by side, the member axis first in every parameter."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class MemberLinear(nn.Module):
    """(members, batch, ..., inputs) → (members, batch, ..., outputs), each member with its own weights.

    (batch, inputs) without a member axis goes to all members.
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(inputs, 1))
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add, member by member."""
        if x.dim() == 2:
            x = x.expand(self.weight.shape[0], *x.shape)
        if x.dim() == 3:
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias, x.flatten(1, -2), self.weight).unflatten(1, x.shape[1:-1])


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


class MemberNorm(nn.Module):
    """Layer normalisation over the last axis, each member with its own scale and shift."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, 1, width))

    def forward(self, x: Float[Tensor, "members batch tokens width"]) -> Float[Tensor, "members batch tokens width"]:
        """Normalise, scale and shift."""
        return functional.layer_norm(x, x.shape[-1:]) * self.scale + self.shift


class MemberConv(nn.Module):
    """A causal convolution at every second time step, the last one among them, one group of channels a member.

    (batch, members · inputs, time) → (batch, members · outputs, half the time, rounded up). Stacked, these give at the
    last step what dilations of 1, 2, 4, ... give there, without the steps that nobody asks for.
    """

    def __init__(self, members: int, inputs: int, outputs: int, *, kernel: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs * kernel)
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "batch inputs time"]) -> Float[Tensor, "batch outputs half"]:
        """Convolve with zeros before the first step, so that no step sees a later one."""
        kernel, first = self.weight.shape[-1], (x.shape[-1] - 1) % 2
        return functional.conv1d(
            functional.pad(x, (kernel - 1, 0))[..., first:],
            self.weight.flatten(0, 1),
            self.bias.flatten(),
            stride=2,
            groups=self.weight.shape[0],
        )


class MemberAttention(nn.Module):
    """One encoder layer: self-attention and a feed-forward block, both after normalisation and with a shortcut.

    Source: Vaswani et al. 2017, arXiv:1706.03762; normalised first as Xiong et al. 2020, arXiv:2002.04745.
    """

    def __init__(self, members: int, width: int, heads: int, dropout: MemberDropout) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.before_attention = MemberNorm(members, width)
        self.queries_keys_values = MemberLinear(members, width, 3 * width)
        self.joined = MemberLinear(members, width, width)
        self.before_forward = MemberNorm(members, width)
        self.wide = MemberLinear(members, width, 2 * width)
        self.narrow = MemberLinear(members, 2 * width, width)

    def attend(
        self, x: Float[Tensor, "members batch tokens width"]
    ) -> tuple[Float[Tensor, "members batch tokens width"], Float[Tensor, "members batch heads tokens tokens"]]:
        """What the tokens gather from each other, and the attention maps."""
        three = self.queries_keys_values(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = three.transpose(-2, -4).unbind(dim=-3)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        maps = scores.softmax(dim=-1)
        return self.joined((maps @ value).transpose(-2, -3).flatten(-2)), maps

    def forward(
        self, x: Float[Tensor, "members batch tokens width"]
    ) -> tuple[Float[Tensor, "members batch tokens width"], Float[Tensor, "members batch heads tokens tokens"]]:
        """Attend, then feed forward; the attention maps go along."""
        gathered, maps = self.attend(x)
        x = x + self.dropout(gathered)
        return x + self.dropout(self.narrow(functional.gelu(self.wide(self.before_forward(x))))), maps
