import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import READINGS, dataset_of, synthetic_panel
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.recipe import UNPRIVILEGED, Views
from tutelage.distil.views import privileged_values, privileged_width, shuffle_windows

LOOKBACK, HORIZON = 4, 2
FUTURE = Views(future_sigma=0.0, minutes_hours=0, auxiliary=False)
PAST = Views(future_sigma=None, minutes_hours=3, auxiliary=True)


@pytest.fixture
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([80]), train_hours=50, lookback=LOOKBACK, horizon=HORIZON)


def values(dataset: WindowDataset, views: Views, origins: Tensor, *, seed: int = 0) -> Tensor:
    return privileged_values(
        dataset.panel,
        origins,
        views,
        dataset.scalers,
        lookback=LOOKBACK,
        horizon=HORIZON,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize(
    ("sigma", "minutes_hours", "auxiliary"),
    list(itertools.product([None, 0.0, 2.0], [0, 3, LOOKBACK + 9], [False, True])),
)
def test_privileged_width__is_that_of_the_values(
    dataset: WindowDataset, sigma: float | None, minutes_hours: int, auxiliary: bool
) -> None:
    views = Views(future_sigma=sigma, minutes_hours=minutes_hours, auxiliary=auxiliary)
    expected = HORIZON * (sigma is not None) + READINGS * min(minutes_hours, LOOKBACK) + 2 * LOOKBACK * auxiliary
    assert privileged_width(dataset.panel, views, lookback=LOOKBACK, horizon=HORIZON) == expected
    assert values(dataset, views, dataset.train).shape == (len(dataset.train), expected)


def test_privileged_values__without_noise_the_future_is_exact(dataset: WindowDataset) -> None:
    mean, std = dataset.scalers.observed.mean[0], dataset.scalers.observed.std[0]
    origin = int(dataset.train[5])
    truth = (dataset.panel.observed[origin : origin + HORIZON, 0] - mean) / std
    torch.testing.assert_close(values(dataset, FUTURE, dataset.train[5:6])[0], truth)


def test_privileged_values__noise_has_sigma_and_follows_the_seed(dataset: WindowDataset) -> None:
    origins = dataset.train.repeat(100)
    noisy = FUTURE.model_copy(update={"future_sigma": 2.0})
    noise = values(dataset, noisy, origins) - values(dataset, FUTURE, origins)
    assert noise.mean().item() == pytest.approx(0, abs=0.1)
    assert noise.std().item() == pytest.approx(2, abs=0.1)
    assert torch.equal(values(dataset, noisy, origins), values(dataset, noisy, origins))
    assert not torch.equal(values(dataset, noisy, origins, seed=1), values(dataset, noisy, origins))


def test_privileged_values__minutes_and_auxiliary_stand_in_order_of_time(dataset: WindowDataset) -> None:
    origin = int(dataset.train[5])
    seen = values(dataset, PAST, dataset.train[5:6])[0]
    minutes = seen[: 3 * READINGS] * dataset.scalers.minutes.std[0] + dataset.scalers.minutes.mean[0]
    torch.testing.assert_close(minutes, dataset.panel.minutes[origin - 3 : origin].flatten())
    scaler = dataset.scalers.auxiliary
    auxiliary = seen[3 * READINGS :].reshape(LOOKBACK, 2) * torch.tensor(scaler.std) + torch.tensor(scaler.mean)
    torch.testing.assert_close(auxiliary, dataset.panel.auxiliary[origin - LOOKBACK : origin])


def test_privileged_values__minutes_and_auxiliary_end_before_the_origin(dataset: WindowDataset) -> None:
    origin = dataset.train[5:6]
    before = values(dataset, PAST, origin)
    dataset.panel.minutes[origin:] += 9.0
    dataset.panel.auxiliary[origin:] += 9.0
    assert torch.equal(values(dataset, PAST, origin), before)
    dataset.panel.minutes[origin - 1] += 9.0
    dataset.panel.auxiliary[origin - 1] += 9.0
    assert (values(dataset, PAST, origin) != before).sum() == READINGS + 2


def test_privileged_values__a_missing_value_is_its_mean(dataset: WindowDataset) -> None:
    origin = int(dataset.train[5])
    dataset.panel.auxiliary[origin - 1, 0] = torch.nan
    dataset.panel.minutes[origin - 1, 0] = torch.nan
    seen = values(dataset, PAST, dataset.train[5:6])[0]
    assert (seen == 0).nonzero().flatten().tolist() == [2 * READINGS, 3 * READINGS + 2 * (LOOKBACK - 1)]


@pytest.mark.parametrize("count", [2, 3, 50])
def test_shuffle_windows__each_sees_another_one_of_the_part(count: int) -> None:
    origins = torch.arange(100, 100 + 3 * count, 3)
    shown = shuffle_windows(origins, seed=0)
    assert sorted(shown.tolist()) == origins.tolist()
    assert (shown != origins).all()
    assert torch.equal(shuffle_windows(origins, seed=0), shown)
    assert count < 4 or not torch.equal(shuffle_windows(origins, seed=1), shown)


@pytest.mark.parametrize("count", [0, 1])
def test_shuffle_windows__too_few_to_shuffle_stay(count: int) -> None:
    assert shuffle_windows(torch.arange(count), seed=0).tolist() == list(range(count))


def test_privileged_values__of_no_view_are_none(dataset: WindowDataset) -> None:
    assert values(dataset, UNPRIVILEGED, dataset.train).shape == (len(dataset.train), 0)


def test_privileged_values__without_noise_the_auxiliary_future_is_what_was_measured(dataset: WindowDataset) -> None:
    ahead = Views(future_sigma=None, minutes_hours=0, auxiliary=False, auxiliary_future_sigma=0.0)
    assert ahead.any
    assert privileged_width(dataset.panel, ahead, lookback=LOOKBACK, horizon=HORIZON) == 2 * HORIZON
    measured = dataset.panel.auxiliary.clone()
    origin = int(dataset.train[5])
    measured[origin + 1, 0] = torch.nan
    gap = replace(dataset, panel=replace(dataset.panel, auxiliary=measured))
    mean, std = (torch.tensor(each) for each in (gap.scalers.auxiliary.mean, gap.scalers.auxiliary.std))
    expected = ((measured[origin : origin + HORIZON] - mean) / std).nan_to_num(0.0).flatten()
    torch.testing.assert_close(values(gap, ahead, gap.train[5:6])[0], expected)
    assert expected[2] == 0
    noisy = ahead.model_copy(update={"auxiliary_future_sigma": 2.0})
    origins = dataset.train.repeat(100)
    noise = values(dataset, noisy, origins) - values(dataset, ahead, origins)
    assert noise.std().item() == pytest.approx(2, abs=0.1)
    assert [each.is_noisy for each in (ahead, noisy, PAST)] == [False, True, False]
