"""What a forecast rests on, of graphs whose inputs are known to matter or not to matter."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tutelage.builders import START, dataset_of, small_network, small_spec, synthetic_panel
from tutelage.data.grid import DAY, HOUR, MINUTE, Grid
from tutelage.distil.base import fit_base
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import exported_inputs, forecast_exported, forecast_inputs
from tutelage.forecasts import Contender
from tutelage.judge.explanation import input_groups, rests_on, shuffled
from tutelage.model.export import export_student, student_card
from tutelage.model.inference import Student, load_student


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([900]), train_hours=600, validation_hours=150, lookback=30, horizon=3)


def exported(dataset: WindowDataset, folder: Path, weights: dict[Contender, float]) -> Student:
    network, base = small_network(dataset, members=1), fit_base(dataset, weights)
    card = student_card(network, small_spec(), trained_until=START, base=base)
    export_student(network, dataset.bins, card, folder, base=base)
    return load_student(folder)


@pytest.fixture(scope="module")
def days(dataset: WindowDataset, tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A student that forecasts by the same hour of seven days alone."""
    return exported(dataset, tmp_path_factory.mktemp("export") / "days", {Contender.SAME_HOUR_7D: 1.0})


def test_rests_on__a_last_value_rests_on_the_last_hour_alone(tmp_path: Path) -> None:
    panel = synthetic_panel([900])
    slow = 3 + 2 * torch.sin(torch.arange(900) / 40)
    slow = replace(panel, observed=torch.cat([slow[:, None], panel.observed[:, 1:]], dim=1), filled=None)
    drifting = dataset_of(slow, train_hours=600, validation_hours=150, lookback=30, horizon=3)
    student = exported(drifting, tmp_path / "last", {Contender.LAST_VALUE: 1.0})
    rises = rests_on(student, drifting, drifting.test, seed=0)
    first = next(iter(rises))
    assert first == f"{student.card['observed'][0]}: the last hour"
    assert rises.pop(first) > 1
    assert set(rises.values()) == {0}


def test_rests_on__the_same_hour_of_days_before_does_not_need_the_last_hour(
    dataset: WindowDataset, days: Student
) -> None:
    rises = rests_on(days, dataset, dataset.test, seed=0)
    target = days.card["observed"][0]
    assert next(iter(rises)) == f"{target}: the days before"
    assert abs(rises[f"{target}: the last hour"]) < 0.02
    assert rises == rests_on(days, dataset, dataset.test, seed=0)


def test_rests_on__of_one_window_says_nothing(dataset: WindowDataset, days: Student) -> None:
    assert rests_on(days, dataset, dataset.test[:1], seed=0) == {}


def test_input_groups__are_every_input_once(days: Student) -> None:
    card = days.card | {"observed": ["load_kw", "wind_m_s"], "known_future": ["price"]}
    for step, last in ((15 * MINUTE, 4), (HOUR, 1), (6 * HOUR, 1), (DAY, 1)):
        groups = list(input_groups(replace(days, card=card), Grid(step), 40))
        times = np.zeros((2, 40), dtype=int)
        for _, which, steps, columns in groups:
            if which == "observed":
                times[columns, steps] += 1
        assert (times == 1).all(), step
        assert groups[0][2] == slice(40 - last, 40)
        of_known = [column for _, which, _, columns in groups if which == "known" for column in columns]
        assert of_known == [*([0] if step < DAY else []), 1, 2, 3]


def test_shuffled__changes_these_steps_and_columns_only() -> None:
    values = np.arange(3 * 4 * 2, dtype=float).reshape(3, 4, 2)
    changed = shuffled(values, slice(2, 4), [1], np.array([1, 2, 0]))
    assert (changed[:, 2:, 1] == values[[1, 2, 0], 2:, 1]).all()
    assert (changed[:, :2] == values[:, :2]).all()
    assert (changed[..., 0] == values[..., 0]).all()


def test_forecast_inputs__of_a_datasets_windows_are_its_forecasts(dataset: WindowDataset, days: Student) -> None:
    seen, ahead = exported_inputs(days, dataset, dataset.test)
    given = forecast_inputs(days, dataset, dataset.test, seen, ahead)
    assert (given.quantiles == forecast_exported(days, dataset, dataset.test).quantiles).all()
