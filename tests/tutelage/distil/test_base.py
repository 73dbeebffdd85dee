from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tutelage.builders import START, dataset_of, small_network, small_spec, synthetic_panel
from tutelage.distil.base import fit_linear_on, forecast_with_base, linear_inputs
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.students import forecast_students
from tutelage.distil.teachers import forecast_exported
from tutelage.model.export import export_student, student_card
from tutelage.model.inference import load_student
from tutelage.model.linear import Base
from tutelage.model.networks import select_members


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([600]), train_hours=400, validation_hours=100, lookback=30, horizon=3)


@pytest.fixture(scope="module")
def base(dataset: WindowDataset) -> Base:
    return Base(fit_linear_on(dataset, dataset.train), network_share=0.5)


def test_forecast_with_base__is_the_mean_of_both_quantile_by_quantile(dataset: WindowDataset, base: Base) -> None:
    students = small_network(dataset, members=2)
    linear = base.linear.forecast(*linear_inputs(dataset, dataset.test))
    members = list(forecast_students(students, dataset, dataset.test))
    for based, member in zip(forecast_with_base(students, dataset, dataset.test, base), members, strict=True):
        np.testing.assert_allclose(based.quantiles, (member.quantiles + linear.quantiles) / 2)
        np.testing.assert_allclose(based.mean, (member.mean + linear.mean) / 2)
        assert (np.diff(based.quantiles, axis=-1) >= -1e-12).all()


def test_forecast_with_base__without_one_is_the_networks(dataset: WindowDataset) -> None:
    students = small_network(dataset, members=1)
    [expected] = forecast_students(students, dataset, dataset.test)
    [forecast] = forecast_with_base(students, dataset, dataset.test, None)
    assert np.array_equal(forecast.quantiles, expected.quantiles)


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_export_student__the_graph_is_the_average(
    dataset: WindowDataset, base: Base, share: float, tmp_path: Path
) -> None:
    base = replace(base, network_share=share)
    student = select_members(small_network(dataset, members=1), dataset.scalers, [0])
    [expected] = forecast_with_base(student, dataset, dataset.test, base)
    card = student_card(student, small_spec(), trained_until=START)
    export_student(student, dataset.bins, card, tmp_path / "export", base=base)
    forecast = forecast_exported(load_student(tmp_path / "export"), dataset, dataset.test)
    np.testing.assert_allclose(forecast.quantiles, expected.quantiles, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(forecast.mean, expected.mean, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "export" / "student.onnx").stat().st_size < 2**20
