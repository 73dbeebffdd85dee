from dataclasses import replace

import numpy as np
import pytest

from tests.tutelage.builders import dataset_of, synthetic_panel
from tutelage.data.sizes import Sizes
from tutelage.distil.dataset import WindowDataset
from tutelage.judge.series import SeriesScore, score_series


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    sizes = Sizes({"a": 0.5, "b": 4.0}, spread=1.0, columns=("power_kw",))
    panel = replace(synthetic_panel([200, 170]), names=("a", "b"), sizes=sizes)
    return dataset_of(panel, train_hours=100, validation_hours=50)


def test_score_series__are_in_the_targets_unit_and_worst_first(dataset: WindowDataset) -> None:
    of_b = np.array(dataset.panel.names_at(dataset.test)) == "b"
    chosen, floor = np.where(of_b, 3.0, 1.0), np.ones(len(of_b))
    worst, best = score_series(dataset, np.stack([chosen, chosen]), floor[None])
    assert worst == SeriesScore("b", windows=int(of_b.sum()), crps=12.0, floor_crps=4.0)
    assert best == SeriesScore("a", windows=int((~of_b).sum()), crps=0.5, floor_crps=0.5)
    assert (worst.against_floor, best.against_floor) == (3.0, 1.0)


def test_score_series__one_series_has_none(dataset: WindowDataset) -> None:
    alone = replace(dataset, panel=replace(dataset.panel, sizes=None))
    losses = np.ones((1, len(alone.test)))
    assert score_series(alone, losses, losses) == []


@pytest.mark.parametrize(("crps", "ratio"), [(0.0, 1.0), (0.1, float("inf"))])
def test_against_floor__of_a_floor_without_a_loss(crps: float, ratio: float) -> None:
    assert SeriesScore("a", 1, crps, 0.0).against_floor == ratio
