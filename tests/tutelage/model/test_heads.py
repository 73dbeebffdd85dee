import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.tutelage.builders import PROPERTY
from tutelage.errors import DataError
from tutelage.forecasts import QUANTILE_LEVELS
from tutelage.model.heads import (
    HEAD_LEVELS,
    bin_index,
    fit_bins,
    forecast_of,
    head_labels,
    head_width,
    mean_of,
    ordered_quantiles,
    probabilities_of,
    quantiles_of,
)
from tutelage.model.kinds import Head

# Half of the mass on [0, 1), a quarter each on [1, 2) and [2, 4].
EDGES = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64)
PROBABILITIES = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)


@st.composite
def distributions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Probabilities, zeros among them, and ascending edges."""
    bins = draw(st.integers(2, 8))
    weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1.0)), min_size=bins, max_size=bins)
    mass = torch.tensor(draw(weights.filter(any)), dtype=torch.float64)
    gaps = torch.tensor(draw(st.lists(st.floats(0.01, 10), min_size=bins, max_size=bins)), dtype=torch.float64)
    first = torch.tensor([draw(st.floats(-50, 50))], dtype=torch.float64)
    return mass / mass.sum(), first + torch.cat([torch.zeros(1, dtype=torch.float64), gaps.cumsum(0)])


def cdf(probabilities: Tensor, edges: Tensor, values: Tensor) -> Tensor:
    """The share of a piecewise uniform distribution at or below each value."""
    inside = ((values[:, None] - edges[:-1]) / (edges[1:] - edges[:-1])).clamp(0, 1)
    return (inside * probabilities).sum(dim=1)


def test_fit_bins__have_equal_frequency() -> None:
    target = np.random.default_rng(0).lognormal(size=800).astype(np.float32)
    target[::10] = np.nan
    bins = fit_bins(target, 8)
    finite = torch.from_numpy(target[np.isfinite(target)])
    counts = torch.bincount(bin_index(finite, torch.tensor(bins.edges)))
    assert len(bins) == 8
    assert counts.tolist() == [90] * 8
    assert (bins.edges[0], bins.edges[-1]) == (finite.min().item(), finite.max().item())


def test_fit_bins__repeating_values_merge() -> None:
    target = np.array([0.0] * 50 + list(range(1, 51)))
    assert fit_bins(target, 4).edges == (0.0, 0.5, 25.25, 50.0)  # the quartiles are 0, 0, 0.5, 25.25, 50


@pytest.mark.parametrize("share", [0.9, 0.97])
def test_fit_bins__beyond_a_value_that_is_taken_nearly_always(share: float) -> None:
    positive = np.random.default_rng(0).lognormal(size=round(1000 * (1 - share)))
    target = np.concatenate([np.zeros(1000 - len(positive)), positive])
    bins = fit_bins(target, 8)
    assert len(bins) == 8
    assert bins.edges[0] == 0
    counts = np.bincount(bin_index(torch.from_numpy(target), torch.tensor(bins.edges, dtype=torch.float64)).numpy())
    assert (counts > 0).all()


@pytest.mark.parametrize("target", [np.full(100, 3.0), np.full(100, np.nan)], ids=["constant", "missing"])
def test_fit_bins__refuses_a_target_without_spread(target: np.ndarray) -> None:
    with pytest.raises(DataError, match="no bins can be cut"):
        fit_bins(target, 4)


def test_bin_index__at_the_edges_and_beyond() -> None:
    values = torch.tensor([-5.0, 0.0, 0.5, 1.0, 1.9, 2.0, 4.0, 9.0], dtype=torch.float64)
    assert bin_index(values, EDGES).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_mean_of__golden() -> None:
    assert mean_of(PROBABILITIES, EDGES).item() == 0.5 * 0.5 + 0.25 * 1.5 + 0.25 * 3.0


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.1, 0.2), (0.25, 0.5), (0.5, 1.0), (0.6, 1.4), (0.75, 2.0), (0.875, 3.0), (1.0, 4.0)],
)
def test_quantiles_of__golden(level: float, expected: float) -> None:
    levels = torch.tensor([level], dtype=torch.float64)
    assert quantiles_of(PROBABILITIES, EDGES, levels).item() == pytest.approx(expected, abs=1e-12)


def test_quantiles_of__at_a_gap_is_where_the_level_is_first_reached() -> None:
    gap, median = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    assert quantiles_of(gap, EDGES, median).item() == 1.0


def test_quantiles_of__each_distribution_by_itself() -> None:
    batch = torch.stack([PROBABILITIES, PROBABILITIES.flip(0)]).reshape(1, 2, 3)
    levels = torch.tensor(QUANTILE_LEVELS, dtype=torch.float64)
    together = quantiles_of(batch, EDGES, levels)
    assert together.shape == (1, 2, 99)
    for distribution, row in zip(batch[0], together[0], strict=True):
        assert torch.equal(quantiles_of(distribution, EDGES, levels), row)


@PROPERTY
@given(distributions())
def test_quantiles_of__ascend_inside_the_edges(distribution: tuple[Tensor, Tensor]) -> None:
    probabilities, edges = distribution
    quantiles = quantiles_of(probabilities, edges, torch.tensor(QUANTILE_LEVELS, dtype=torch.float64))
    rounding = 1e-12 * edges.abs().max()
    assert (quantiles.diff() >= -rounding).all()
    assert quantiles.min() >= edges[0] - rounding
    assert quantiles.max() <= edges[-1] + rounding


@PROPERTY
@given(distributions(), st.lists(st.floats(0.001, 0.999), min_size=1, max_size=5, unique=True))
def test_quantiles_of__are_the_inverse_of_the_cdf(distribution: tuple[Tensor, Tensor], levels: list[float]) -> None:
    probabilities, edges = distribution
    ascending = torch.tensor(sorted(levels), dtype=torch.float64)
    back = cdf(probabilities, edges, quantiles_of(probabilities, edges, ascending))
    torch.testing.assert_close(back, ascending, rtol=0, atol=1e-9)


SCALE = torch.tensor([5.0, 2.0])


def outputs_of(head: Head) -> Tensor:
    return torch.randn(4, 3, head_width(head, 3), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("head", "width"), [("categorical", 3), ("quantiles", 19), ("point", 1)])
def test_forecast_of__every_head_gives_mean_and_quantiles(head: Head, width: int) -> None:
    outputs = outputs_of(head)
    mean, quantiles = forecast_of(outputs, head, edges=EDGES.float(), scale=SCALE)
    assert outputs.shape[-1] == width
    assert (mean.shape, quantiles.shape) == ((4, 3), (4, 3, 99))
    assert (quantiles.diff(dim=-1) >= 0).all()
    assert ((quantiles[..., 0] <= mean) & (mean <= quantiles[..., -1])).all()


def test_forecast_of__a_point_stands_in_the_targets_unit() -> None:
    mean, quantiles = forecast_of(torch.tensor([[1.5]]), "point", edges=EDGES.float(), scale=SCALE)
    assert mean.tolist() == [5.0 + 2 * 1.5]
    assert (quantiles == mean).all()


def test_ordered_quantiles__golden() -> None:
    outputs = torch.zeros(19)
    outputs[0] = 3.0
    gap = np.log1p(np.exp(-2.0))
    expected = 3.0 + gap * np.arange(-9, 10)
    assert ordered_quantiles(outputs).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_forecast_of__draws_straight_lines_between_quantiles_and_beyond() -> None:
    outputs = outputs_of("quantiles")
    _, quantiles = forecast_of(outputs, "quantiles", edges=EDGES.float(), scale=SCALE)
    of_head = ordered_quantiles(outputs) * 2 + 5
    places = [QUANTILE_LEVELS.index(level) for level in HEAD_LEVELS]
    torch.testing.assert_close(quantiles[..., places], of_head)
    torch.testing.assert_close(quantiles[..., 6], of_head[..., 0] + 0.4 * (of_head[..., 1] - of_head[..., 0]))  # 0.07
    torch.testing.assert_close(
        quantiles[..., 98], of_head[..., 18] + 0.8 * (of_head[..., 18] - of_head[..., 17])
    )  # 0.99


def test_head_labels__are_the_teachers_mean_and_quantiles() -> None:
    soft, levels = PROBABILITIES.log(), torch.tensor(HEAD_LEVELS, dtype=torch.float64)
    scale = SCALE.double()
    assert head_labels(soft, "categorical", edges=EDGES, scale=scale) is soft
    assert head_labels(soft, "point", edges=EDGES, scale=scale).tolist() == [(1.375 - 5) / 2]
    expected = (quantiles_of(PROBABILITIES, EDGES, levels) - 5) / 2
    torch.testing.assert_close(head_labels(soft, "quantiles", edges=EDGES, scale=scale), expected)


def test_probabilities_of__golden() -> None:
    levels, edges = torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0.0, 1.0, 1.5, 3.0, 9.0])
    quantiles = torch.tensor([[1.0, 2.0, 4.0], [2.0, 2.0, 2.0], [10.0, 11.0, 12.0], [-3.0, -2.0, -1.0]])
    # Below 1, 1.5 and 3 lie, of the first, 0.25, 0.375 and 0.625; the others lie between 1.5 and 3, above, and below.
    expected = [[0.25, 0.125, 0.25, 0.375], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(probabilities_of(quantiles, levels, edges), torch.tensor(expected))


@PROPERTY
@given(distributions())
def test_probabilities_of__are_near_those_that_the_quantiles_came_from(given: tuple[Tensor, Tensor]) -> None:
    probabilities, edges = given
    levels = torch.tensor(QUANTILE_LEVELS, dtype=torch.float64)
    back = probabilities_of(quantiles_of(probabilities, edges, levels), levels, edges)
    assert (back >= 0).all()
    assert back.sum().item() == pytest.approx(1)
    # Between two levels, 0.01 apart, lies what a line can't know, at each edge of a bin.
    assert (back - probabilities).abs().max() <= 0.02 + 1e-9
