"""The heads: what a network's outputs mean, and how to compute mean and quantiles from them.

- categorical: logits over quantile bins of the target. The density within a bin is uniform, so the bins' probabilities
  determine the mean and all quantiles.
- quantiles: those at HEAD_LEVELS, which can't cross; other levels are linearly inter- or extrapolated.
- point: one value per hour, without a distribution.

The last two are in standard deviations of the target around its mean.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.errors import DataError
from tutelage.forecasts import QUANTILE_LEVELS, linear_interpolation
from tutelage.model.kinds import Head

HEAD_LEVELS = tuple(round(level / 20, 2) for level in range(1, 20))
NARROW = 2.0
"""Subtracted from the gaps before the softplus: untrained quantiles then span about two standard deviations."""


@dataclass(frozen=True)
class Bins:
    """Edges of the bins, (bins + 1,), ascending, in the target's unit."""

    edges: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.edges) - 1


def fit_bins(target: Float[np.ndarray, " hours"], count: int) -> Bins:
    """Cut the finite values of the training part's target into at most `count` bins of equal frequency.

    Values that repeat often make quantiles coincide. Equal edges are merged, so there may be fewer bins. Where fewer
    than half are left, as by a target that mostly is 0, the most frequent value gets the first edge above it, and the
    others are cut into bins of equal frequency.

    Raises DataError where fewer than two bins remain.
    """
    finite = target[np.isfinite(target)].astype(np.float64)
    if not len(finite):
        raise DataError("the target has no value in the training part: no bins can be cut")
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, count + 1)))
    values, times = np.unique(finite, return_counts=True)
    mass = values[times.argmax()]
    if len(edges) - 1 < count / 2 and len(values) > 2:
        edges = np.unique([mass, *np.quantile(finite[finite != mass], np.linspace(0, 1, count))])
    if len(edges) < 3:
        raise DataError(
            f"the target takes {len(values)} values in the training part, and {times.max() / len(finite):.0%} of its "
            f"hours are {mass:g}: no bins can be cut"
        )
    return Bins(tuple(float(edge) for edge in edges))


def bin_index(target: Float[Tensor, "*shape"], edges: Float[Tensor, " edges"]) -> Int64[Tensor, "*shape"]:
    """The bin of each value; values beyond the outer edges belong to the outer bins."""
    return torch.bucketize(target, edges[1:-1], right=True)


def mean_of(probabilities: Float[Tensor, "*shape bins"], edges: Float[Tensor, " edges"]) -> Float[Tensor, "*shape"]:
    """The distribution's mean, in the target's unit."""
    return (probabilities * (edges[1:] + edges[:-1]) / 2).sum(dim=-1)


def quantiles_of(
    probabilities: Float[Tensor, "*shape bins"],
    edges: Float[Tensor, " edges"],
    levels: Float[Tensor, " levels"],
) -> Float[Tensor, "*shape levels"]:
    """The distribution's quantiles at ascending levels, in the target's unit.

    It uses only comparisons and gathers, so that it can be exported to ONNX.
    """
    above = probabilities.cumsum(dim=-1)
    above = above / above[..., -1:]
    index = (above[..., None, :] < levels[:, None]).sum(dim=-1).clamp(max=probabilities.shape[-1] - 1)
    top = above.gather(-1, index)
    share = (probabilities / probabilities.sum(dim=-1, keepdim=True)).gather(-1, index).clamp(min=1e-12)
    inside = (1 - (top - levels) / share).clamp(0, 1)
    low, high = edges[:-1][index], edges[1:][index]
    return low + inside * (high - low)


def probabilities_of(
    quantiles: Float[Tensor, "*shape levels"], levels: Float[Tensor, " levels"], edges: Float[Tensor, " edges"]
) -> Float[Tensor, "*shape bins"]:
    """Quantile forecasts as probabilities of bins: the share of the distribution between two edges.

    The distribution function is linear between the quantiles (ascending, at ascending levels, in the target's unit).
    The share below the lowest quantile belongs to that quantile's bin, the share above the highest likewise. The outer
    bins have no outer edge.
    """
    inner = edges[1:-1].expand(*quantiles.shape[:-1], -1).contiguous()
    after = torch.searchsorted(quantiles.contiguous(), inner, right=True)
    high, low = after.clamp(max=len(levels) - 1), (after - 1).clamp(min=0)
    start, end = quantiles.gather(-1, low), quantiles.gather(-1, high)
    # Where quantiles coincide no edge lies between them: the whole step belongs to one bin.
    share = ((inner - start) / (end - start).clamp(min=1e-12)).clamp(0, 1)
    below = levels[low] + share * (levels[high] - levels[low])
    below = torch.where(after == 0, 0.0, torch.where(after == len(levels), 1.0, below))
    ends = below.new_zeros(*below.shape[:-1], 1)
    return torch.diff(below, dim=-1, prepend=ends, append=ends + 1)


def head_width(head: Head, bins: int) -> int:
    """Outputs per hour."""
    return {"categorical": bins, "quantiles": len(HEAD_LEVELS), "point": 1}[head]


def ordered_quantiles(outputs: Float[Tensor, "*shape levels"]) -> Float[Tensor, "*shape levels"]:
    """Quantiles at HEAD_LEVELS, standardised: the first output is the median, the others become positive gaps."""
    gaps = torch.nn.functional.softplus(outputs[..., 1:] - NARROW).cumsum(dim=-1)
    middle = len(HEAD_LEVELS) // 2
    from_first = torch.cat([torch.zeros_like(outputs[..., :1]), gaps], dim=-1)
    return outputs[..., :1] + from_first - from_first[..., middle : middle + 1]


def forecast_of(
    outputs: Float[Tensor, "*shape values"],
    head: Head,
    *,
    edges: Float[Tensor, " edges"],
    scale: Float[Tensor, " 2"],
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape levels"]]:
    """Mean and quantiles at QUANTILE_LEVELS, in the target's unit.

    `edges` are those of the bins, `scale` is the target's mean and standard deviation. A quantile head's mean is the
    mean of its quantiles; all quantiles of a point head equal the point.
    """
    if head == "categorical":
        probabilities = outputs.softmax(dim=-1)
        return mean_of(probabilities, edges), quantiles_of(probabilities, edges, outputs.new_tensor(QUANTILE_LEVELS))
    if head == "point":
        value = outputs.squeeze(-1) * scale[1] + scale[0]
        return value, value.unsqueeze(-1).expand(*value.shape, len(QUANTILE_LEVELS))
    between = torch.from_numpy(linear_interpolation(HEAD_LEVELS, QUANTILE_LEVELS)).to(outputs)
    quantiles = ordered_quantiles(outputs) @ between * scale[1] + scale[0]
    return quantiles.mean(dim=-1), quantiles


def head_labels(
    soft: Float[Tensor, "*shape bins"],
    head: Head,
    *,
    edges: Float[Tensor, " edges"],
    scale: Float[Tensor, " 2"],
) -> Float[Tensor, "*shape values"]:
    """A teacher's log-probabilities over bins as soft labels for a student with this head.

    Categorical: unchanged. Quantiles: at HEAD_LEVELS, standardised. Point: the mean, standardised.
    """
    if head == "categorical":
        return soft
    if head == "point":
        return ((mean_of(soft.exp(), edges) - scale[0]) / scale[1]).unsqueeze(-1)
    return (quantiles_of(soft.exp(), edges, soft.new_tensor(HEAD_LEVELS)) - scale[0]) / scale[1]
