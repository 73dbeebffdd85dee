"""Soft labels: teachers' forecasts as log-probabilities over the target's bins, with the origins of their windows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.distil.dataset import WindowDataset
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts
from tutelage.model.heads import mean_of, quantiles_of

SMALLEST_PROBABILITY = 1e-12
"""Lower limit of a bin's probability, so that its logarithm is finite."""


@dataclass(frozen=True)
class SoftLabels:
    """Log-probabilities over the bins, by hour, of the windows with these origins."""

    origins: Int64[Tensor, " windows"]
    log_probabilities: Float[Tensor, "windows horizon bins"]

    def at(self, origins: Int64[Tensor, " wanted"]) -> Float[Tensor, "wanted horizon bins"]:
        """The log-probabilities of the windows with these origins, in their order.

        Raises ValueError where a window has no soft labels.
        """
        if torch.equal(origins, self.origins):
            return self.log_probabilities
        lacking = int((~torch.isin(origins, self.origins)).sum())
        if lacking:
            raise ValueError(f"{lacking} of {len(origins)} windows have no soft labels")
        order = self.origins.argsort()
        return self.log_probabilities[order[torch.searchsorted(self.origins[order], origins)]]


def mean_labels(labels: Sequence[SoftLabels], weights: Float[Tensor, "teachers horizon"] | None = None) -> SoftLabels:
    """The soft labels of several teachers as one: the logarithm of their mean probability.

    weights: of each teacher by hour of the horizon, which sum to 1 over teachers; None: all equal

    Raises ValueError where they belong to different windows.
    """
    first = labels[0].origins
    stacked = torch.stack([each.at(first) for each in labels])
    if weights is None:
        return SoftLabels(first, stacked.logsumexp(dim=0) - math.log(len(labels)))
    return SoftLabels(first, (stacked + weights.to(stacked.device)[:, None, :, None].log()).logsumexp(dim=0))


def likely_weights(
    losses: Float[Tensor, "teachers windows horizon"], *, steps: int = 200
) -> Float[Tensor, "teachers horizon"]:
    """Weights of teachers, by hour of the horizon, under which their mean makes the actual values most likely.

    losses: minus the log-probability of the actual values' bins. The weights are those of a mixture, by expectation
    maximisation from equal ones (Dempster, Laird and Rubin 1977).
    """
    likelihood = (-losses.double()).exp()
    weights = torch.full((len(losses), 1, losses.shape[-1]), 1 / len(losses), dtype=torch.float64, device=losses.device)
    for _ in range(steps):
        shares = weights * likelihood
        weights = (shares / shares.sum(dim=0)).mean(dim=1, keepdim=True)
    return weights.squeeze(1).float()


def splice_horizons(labels: Sequence[SoftLabels]) -> SoftLabels:
    """The soft labels of teachers with ascending horizons as one: each hour comes from the shortest that covers it."""
    parts: list[Tensor] = []
    reached = 0
    for each in labels:
        parts.append(each.log_probabilities[:, reached:])
        reached = each.log_probabilities.shape[1]
    return SoftLabels(labels[0].origins, torch.cat(parts, dim=1))


def join_windows(labels: Sequence[SoftLabels]) -> SoftLabels:
    """The soft labels of several sets of windows, concatenated."""
    return SoftLabels(
        torch.cat([each.origins for each in labels]), torch.cat([each.log_probabilities for each in labels])
    )


def uniform_labels(dataset: WindowDataset) -> SoftLabels:
    """Uniform soft labels, as placeholders for twins, which don't learn from soft labels."""
    uniform = torch.tensor(-math.log(len(dataset.bins)), device=dataset.panel.observed.device)
    origins = dataset.taught()
    return SoftLabels(origins, uniform.expand(len(origins), dataset.horizon, len(dataset.bins)))


def label_forecasts(labels: SoftLabels, edges: Float[Tensor, " edges"]) -> Forecasts:
    """Soft labels as a forecast in the target's unit.

    The mean is that of the distribution, with a uniform density within each bin. It is not the mean of the 99
    quantiles, which leaves out the outer hundredths of the distribution and is biased towards the middle.
    """
    probabilities = labels.log_probabilities.exp()
    levels = edges.new_tensor(QUANTILE_LEVELS)
    mean, quantiles = mean_of(probabilities, edges), quantiles_of(probabilities, edges, levels)
    return Forecasts(mean.cpu().double().numpy(), quantiles.cpu().double().numpy())


def label_losses(labels: SoftLabels, dataset: WindowDataset) -> Float[Tensor, "windows horizon"]:
    """Cross-entropy of each window and hour, in nats: minus the log-probability of the actual value's bin."""
    return bin_losses(labels.log_probabilities, dataset.labels(labels.origins))


def bin_losses(
    log_probabilities: Float[Tensor, "windows horizon bins"], labels: Int64[Tensor, "windows horizon"]
) -> Float[Tensor, "windows horizon"]:
    """Minus the log-probability of the actual value's bin, in nats."""
    return -log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
