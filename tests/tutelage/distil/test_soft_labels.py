import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import Float64OnCpu, dataset_of, random_labels, synthetic_panel
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.soft_labels import (
    SoftLabels,
    bin_losses,
    join_windows,
    label_forecasts,
    label_losses,
    likely_weights,
    mean_labels,
    splice_horizons,
    uniform_labels,
)
from tutelage.forecasts import QUANTILE_LEVELS


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([160]), train_hours=100)


def labels_of(*probabilities: list[float], first: int = 0) -> SoftLabels:
    """One window of one hour for each distribution, with origins from `first` on."""
    origins = torch.arange(first, first + len(probabilities))
    return SoftLabels(origins, torch.tensor(probabilities).unsqueeze(1).log())


def test_soft_labels__at_reorders() -> None:
    labels = SoftLabels(torch.tensor([30, 10, 20]), torch.tensor([3.0, 1.0, 2.0]).view(3, 1, 1))
    assert labels.at(torch.tensor([10, 20, 30])).flatten().tolist() == [1.0, 2.0, 3.0]
    assert labels.at(torch.tensor([20, 20, 30])).flatten().tolist() == [2.0, 2.0, 3.0]
    assert labels.at(torch.tensor([30, 10, 20])) is labels.log_probabilities
    assert labels.at(torch.tensor([], dtype=torch.int64)).shape == (0, 1, 1)


@pytest.mark.parametrize("missing", [[5], [15], [99], [5, 99]])
def test_soft_labels__at_refuses_a_window_that_is_missing(missing: list[int]) -> None:
    labels = SoftLabels(torch.tensor([30, 10, 20]), torch.zeros(3, 1, 1))
    with pytest.raises(ValueError, match=f"^{len(missing)} of {len(missing) + 1} windows have no soft labels$"):
        labels.at(torch.tensor([10, *missing]))
    none = SoftLabels(labels.origins[:0], labels.log_probabilities[:0])
    with pytest.raises(ValueError, match=r"^1 of 1 windows have no soft labels$"):
        none.at(torch.tensor([10]))


def test_mean_labels__are_the_mean_of_probabilities() -> None:
    first, second = (torch.randn(5, 2, 7).log_softmax(dim=-1) for _ in range(2))
    origins = torch.arange(5)
    mean = mean_labels([SoftLabels(origins, first), SoftLabels(origins, second)])
    torch.testing.assert_close(mean.log_probabilities.exp(), (first.exp() + second.exp()) / 2)


def test_mean_labels__are_taken_window_by_window_in_the_order_of_the_first() -> None:
    first, second = labels_of([0.2, 0.8], [0.6, 0.4], first=7), labels_of([0.4, 0.6], [0.8, 0.2], first=7)
    turned = SoftLabels(second.origins.flip(0), second.log_probabilities.flip(0))
    mean = mean_labels([first, turned])
    assert mean.origins.tolist() == [7, 8]
    torch.testing.assert_close(mean.log_probabilities.exp()[:, 0], torch.tensor([[0.3, 0.7], [0.7, 0.3]]))
    with pytest.raises(ValueError, match="1 of 2 windows have no soft labels"):
        mean_labels([first, labels_of([0.4, 0.6], [0.8, 0.2], first=8)])


def test_splice_horizons__each_hour_is_from_the_shortest_that_reaches_it() -> None:
    labels = [SoftLabels(torch.arange(2), torch.full((2, hours, 3), float(hours))) for hours in (1, 3, 4)]
    assert splice_horizons(labels).log_probabilities[..., 0].tolist() == [[1.0, 3.0, 3.0, 4.0]] * 2
    assert splice_horizons(labels[2:]).log_probabilities.equal(labels[2].log_probabilities)
    assert splice_horizons(labels).origins.tolist() == [0, 1]


def test_join_windows__puts_sets_one_after_the_other() -> None:
    first, second = labels_of([0.2, 0.8], first=9), labels_of([0.4, 0.6], [0.8, 0.2], first=3)
    joined = join_windows([first, second])
    assert joined.origins.tolist() == [9, 3, 4]
    torch.testing.assert_close(joined.at(torch.tensor([4, 9])).exp()[:, 0], torch.tensor([[0.8, 0.2], [0.2, 0.8]]))


def test_uniform_labels__carry_no_information(dataset: WindowDataset) -> None:
    labels = uniform_labels(dataset)
    assert torch.equal(labels.origins, dataset.taught())
    expected = torch.full((len(dataset.train), dataset.horizon, len(dataset.bins)), 1 / len(dataset.bins))
    torch.testing.assert_close(labels.log_probabilities.exp(), expected)


# Nine tenths lie on [0, 1), a tenth on [1, 100).
SKEWED, EDGES = [0.9, 0.1], torch.tensor([0.0, 1.0, 100.0])


def test_label_forecasts__the_mean_is_the_distributions_and_not_that_of_the_quantiles() -> None:
    forecasts = label_forecasts(labels_of(SKEWED, [0.5, 0.5]), EDGES)
    assert forecasts.mean[:, 0] == pytest.approx([0.9 * 0.5 + 0.1 * 50.5, 0.5 * 0.5 + 0.5 * 50.5])
    # 90 quantiles up to 1, at k / 90, and nine on the way to 100, at 1 + 9.9 k.
    assert forecasts.quantiles[0, 0].mean() == pytest.approx((45.5 + 9 + 9.9 * 45) / 99)
    assert forecasts.quantiles[0, 0].mean() < 0.95 * forecasts.mean[0, 0]


def test_label_forecasts__quantiles_are_straight_lines_within_a_bin() -> None:
    quantiles = label_forecasts(labels_of(SKEWED), EDGES).quantiles[0, 0]
    assert quantiles.dtype == np.float64
    expected = [level / 0.9 if level <= 0.9 else 1 + 99 * (level - 0.9) / 0.1 for level in QUANTILE_LEVELS]
    assert quantiles == pytest.approx(expected, rel=1e-4)


def test_label_forecasts__makes_float64_on_the_cpu_alone() -> None:
    labels = labels_of(SKEWED)
    with Float64OnCpu() as watch:
        label_forecasts(labels, EDGES)
    assert watch.made == 2  # mean and quantiles


def test_bin_losses__golden() -> None:
    log_probabilities = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]).log()
    losses = bin_losses(log_probabilities, torch.tensor([[1, 0]]))
    torch.testing.assert_close(losses, torch.tensor([[-math.log(0.75), math.log(2)]]))


def test_label_losses__are_of_the_bins_that_came_true(dataset: WindowDataset) -> None:
    labels = random_labels(dataset, dataset.validation)
    losses, bins = label_losses(labels, dataset), dataset.labels(dataset.validation)
    assert losses.shape == bins.shape

    def loss(window: int, hour: int) -> Tensor:
        return -labels.log_probabilities[window, hour, bins[window, hour]]

    for window, hour in ((0, 0), (3, 1), (len(bins) - 1, 1)):
        assert losses[window, hour] == loss(window, hour)


def test_mean_labels__weights_by_hour() -> None:
    first, second = labels_of([0.4, 0.6], [0.8, 0.2]), labels_of([0.2, 0.8], [0.4, 0.6])
    weights = torch.tensor([[0.25, 1.0], [0.75, 0.0]])
    mean = mean_labels([first, second], weights).log_probabilities.exp()
    expected = [[[0.25, 0.75], [0.4, 0.6]], [[0.5, 0.5], [0.8, 0.2]]]
    torch.testing.assert_close(mean, torch.tensor(expected))


def test_likely_weights__golden() -> None:
    # In the first hour both say the same; in the second only the first one is ever right; in the third each is right
    # in half of the windows.
    likelihood = torch.tensor([[[0.5, 0.9, 0.9], [0.5, 0.9, 0.1]], [[0.5, 1e-9, 0.1], [0.5, 1e-9, 0.9]]])
    weights = likely_weights(-likelihood.log())
    torch.testing.assert_close(weights, torch.tensor([[0.5, 1.0, 0.5], [0.5, 0.0, 0.5]]), rtol=0, atol=1e-4)
