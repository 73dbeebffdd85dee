"""The categorical head: the target's range cut into quantile bins, a forecast as a distribution over them.

Within a bin the density is taken as uniform: from the probabilities of the bins follow the mean and all quantiles.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.errors import DataError

QUANTILE_LEVELS = tuple(round(level / 100, 2) for level in range(1, 100))


@dataclass(frozen=True)
class Bins:
    """Edges of the bins, ascending, in the target's unit: (bins + 1,)."""

    edges: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.edges) - 1


def fit_bins(target: Float[np.ndarray, " hours"], count: int) -> Bins:
    """Cut the finite values of the training part's target into at most `count` bins of equal frequency.

    Values that repeat often make quantiles coincide: equal edges are merged, so fewer bins may come out.

    Raises DataError where fewer than two bins are left.
    """
    finite = target[np.isfinite(target)]
    edges = np.unique(np.quantile(finite.astype(np.float64), np.linspace(0, 1, count + 1))) if len(finite) else finite
    if len(edges) < 3:
        raise DataError(f"the target takes {len(np.unique(finite))} values in the training part: no bins can be cut")
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

    Written with comparisons and gathers only, so that ONNX can hold it.
    """
    above = probabilities.cumsum(dim=-1)
    above = above / above[..., -1:]
    index = (above[..., None, :] < levels[:, None]).sum(dim=-1).clamp(max=probabilities.shape[-1] - 1)
    top = above.gather(-1, index)
    share = (probabilities / probabilities.sum(dim=-1, keepdim=True)).gather(-1, index).clamp(min=1e-12)
    inside = (1 - (top - levels) / share).clamp(0, 1)
    low, high = edges[:-1][index], edges[1:][index]
    return low + inside * (high - low)
