"""Layers with a member axis: the weights of many networks in one tensor, the member axis first."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_drawing: ContextVar[torch.Generator | None] = ContextVar("drawing", default=None)


@contextmanager
def first_weights(seed: int) -> Iterator[torch.Generator]:
    """Let layers that are made in this block, in this thread, draw their weights from a generator, which is yielded."""
    generator = torch.Generator().manual_seed(seed)
    before = _drawing.set(generator)
    try:
        yield generator
    finally:
        _drawing.reset(before)


def drawn_uniformly(bound: float, *shape: int) -> nn.Parameter:
    """A parameter with first weights from -bound to bound."""
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=_drawing.get()))


def drawn_normally(deviation: float, *shape: int) -> nn.Parameter:
    """A parameter with normal first weights."""
    return nn.Parameter(deviation * torch.randn(shape, generator=_drawing.get()))


class MemberLinear(nn.Module):
    """(members, batch, ..., inputs) → (members, batch, ..., outputs), each member with its own weights.

    An input (batch, inputs) without a member axis goes to all members.
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(inputs, 1))
        self.weight = drawn_uniformly(bound, members, inputs, outputs)
        self.bias = drawn_uniformly(bound, members, 1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add the bias, member by member."""
        if x.dim() == 2:
            x = x.expand(self.weight.shape[0], *x.shape)
        if x.dim() == 3:
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias, x.flatten(1, -2), self.weight).unflatten(1, x.shape[1:-1])


class MemberDropout(nn.Module):
    """Dropout with a rate and, where seeds are given, a random generator for each member.

    Without seeds all members have the same rate and `generator`. With seeds, what a member drops depends only on its
    seed and the epoch: not on the other members, nor on where a run was interrupted. Members with the same seed use the
    same random numbers, so that a student and its twin differ only in their loss.

    generator: of the training, on the network's device; None: torch's global one
    """

    def __init__(self, members: int, rate: float) -> None:
        super().__init__()
        self.rates: tuple[float, ...] = (rate,) * members
        self.seeds: tuple[int, ...] | None = None
        self.generator: torch.Generator | None = None
        self._generators: dict[int, torch.Generator] = {}

    def assign(self, rates: Sequence[float], seeds: Sequence[int] | None) -> None:
        """Give each member its rate and its seed."""
        self.rates, self.seeds = tuple(rates), None if seeds is None else tuple(seeds)

    def restart(self, epoch: int, device: torch.device) -> None:
        """Reset the members' generators to the start of an epoch."""
        # A seed has 31 bits and an epoch fewer than 20: no two pairs give the same number.
        self._generators = {
            seed: torch.Generator(device).manual_seed((seed << 20) + epoch) for seed in set(self.seeds or ())
        }

    def forward(self, x: Float[Tensor, "members batch *rest"]) -> Float[Tensor, "members batch *rest"]:
        """In training mode, drop units and scale up the others."""
        if not self.training or not any(self.rates):
            return x
        if self.seeds is None:
            share = 1 - self.rates[0]
            return x * torch.empty_like(x).bernoulli_(share, generator=self.generator).div_(share)
        if not self._generators:
            self.restart(0, x.device)
        noise = {s: torch.rand(x.shape[1:], generator=g, device=x.device) for s, g in self._generators.items()}
        masks = [(noise[s] >= rate).to(x.dtype) / (1 - rate) for s, rate in zip(self.seeds, self.rates, strict=True)]
        return x * torch.stack(masks)


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
    """A causal convolution at every second time step, including the last, with one group of channels per member.

    (batch, members · inputs, time) → (batch, members · outputs, half the time, rounded up). A stack of them computes
    at the last step what dilations of 1, 2, 4, ... compute there, and skips the steps that don't contribute to it.
    """

    def __init__(self, members: int, inputs: int, outputs: int, *, kernel: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs * kernel)
        self.weight = drawn_uniformly(bound, members, outputs, inputs, kernel)
        self.bias = drawn_uniformly(bound, members, outputs)

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
    """One encoder layer: self-attention and a feed-forward block, each with pre-normalisation and a shortcut.

    Source: Vaswani et al. 2017, arXiv:1706.03762; pre-normalisation: Xiong et al. 2020, arXiv:2002.04745.
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
        """The output of self-attention, and the attention maps."""
        three = self.queries_keys_values(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = three.transpose(-2, -4).unbind(dim=-3)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        maps = scores.softmax(dim=-1)
        return self.joined((maps @ value).transpose(-2, -3).flatten(-2)), maps

    def forward(
        self, x: Float[Tensor, "members batch tokens width"]
    ) -> tuple[Float[Tensor, "members batch tokens width"], Float[Tensor, "members batch heads tokens tokens"]]:
        """The layer's output, and the attention maps."""
        gathered, maps = self.attend(x)
        x = x + self.dropout(gathered)
        return x + self.dropout(self.narrow(functional.gelu(self.wide(self.before_forward(x))))), maps
