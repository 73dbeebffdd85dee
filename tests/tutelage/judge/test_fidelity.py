from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tutelage.builders import START, dataset_of, small_network, small_spec, synthetic_panel
from tutelage.distil.base import fit_base
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import forecast_exported
from tutelage.errors import ExportError
from tutelage.forecasts import Contender, Forecasts
from tutelage.judge.fidelity import TOLERANCE, check_fidelity, is_constant
from tutelage.model.base import Base
from tutelage.model.export import export_student, student_card
from tutelage.model.inference import Student, load_student
from tutelage.model.networks import Forecaster, select_members


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([900]), train_hours=600, validation_hours=150, lookback=30, horizon=3)


@pytest.fixture(scope="module")
def base(dataset: WindowDataset) -> Base:
    return fit_base(dataset, {Contender.BOOSTED: 0.5, Contender.SAME_HOUR_14D: 0.3})


@pytest.fixture(scope="module")
def network(dataset: WindowDataset) -> Forecaster:
    return select_members(small_network(dataset, members=1), dataset.scalers, [0])


@pytest.fixture(scope="module")
def exported(
    dataset: WindowDataset, network: Forecaster, base: Base, tmp_path_factory: pytest.TempPathFactory
) -> Student:
    folder: Path = tmp_path_factory.mktemp("export") / "student"
    card = student_card(network, small_spec(), trained_until=START, base=base)
    export_student(network, dataset.bins, card, folder, base=base)
    return load_student(folder)


def test_check_fidelity__of_an_export_is_a_matter_of_rounding(
    dataset: WindowDataset, network: Forecaster, base: Base, exported: Student
) -> None:
    for origins in (dataset.test, dataset.test[:1]):
        forecasts = forecast_exported(exported, dataset, origins)
        assert check_fidelity(forecasts, network, base, dataset, origins) < TOLERANCE / 10


def test_check_fidelity__refuses_what_another_base_would_forecast(
    dataset: WindowDataset, network: Forecaster, base: Base, exported: Student
) -> None:
    other = replace(base, weights={Contender.BOOSTED: 0.5, Contender.SAME_HOUR_14D: 0.301})
    with pytest.raises(ExportError, match=r"differ by 0.0\d+ standard deviations of the target on average"):
        check_fidelity(forecast_exported(exported, dataset, dataset.test), network, other, dataset, dataset.test)


def test_check_fidelity__refuses_what_is_not_finite(
    dataset: WindowDataset, network: Forecaster, base: Base, exported: Student
) -> None:
    broken = select_members(network, dataset.scalers, [0])
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(ExportError, match="not finite"):
        check_fidelity(forecast_exported(exported, dataset, dataset.test), broken, base, dataset, dataset.test)


def test_is_constant__is_the_same_for_every_window() -> None:
    once = np.random.default_rng(0).normal(size=(1, 3, 99))
    assert is_constant(Forecasts(once.mean(axis=-1).repeat(4, axis=0), once.repeat(4, axis=0)))
    varied = np.concatenate([once, once + 1e-6])
    assert not is_constant(Forecasts(varied.mean(axis=-1), varied))
    assert not is_constant(Forecasts(once.mean(axis=-1), once)), "one window says nothing"
