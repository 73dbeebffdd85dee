from dataclasses import replace

import pytest
import torch

from tests.tutelage.builders import Float64OnCpu, hours_span, synthetic_panel
from tutelage.data.grid import HOURLY
from tutelage.model.scaling import Scaler, fit_scaler, fit_scalers


def test_fit_scaler__golden() -> None:
    values = torch.tensor([[1.0, 7.0, torch.nan], [torch.nan, 7.0, torch.nan], [3.0, 7.0, torch.nan], [5.0, 7.0, 2.0]])
    assert fit_scaler(values) == Scaler(mean=(3.0, 7.0, 2.0), std=(2.0, 1.0, 1.0))


def test_fit_scaler__no_columns() -> None:
    assert fit_scaler(torch.zeros(5, 0)) == Scaler((), ())


def test_fit_scalers__know_the_training_hours_alone() -> None:
    panel = synthetic_panel([40, 40], missing=0.1, starts=[0, 10])
    train = hours_span(5, 20)
    before = fit_scalers(panel, train)
    outside = ~torch.isin(panel.step, torch.tensor(train.steps(HOURLY)))
    for values in (panel.observed, panel.known, panel.auxiliary, panel.minutes):
        values[outside] = 1e6
    assert fit_scalers(panel, train) == before
    panel.auxiliary[~outside] += 1.0
    changed = fit_scalers(panel, train)
    assert changed.auxiliary.mean == pytest.approx([mean + 1 for mean in before.auxiliary.mean], rel=1e-5)
    assert replace(changed, auxiliary=before.auxiliary) == before


def test_fit_scaler__makes_float64_on_the_cpu_alone() -> None:
    values = torch.tensor([[1.0, 7.0], [torch.nan, 7.0], [3.0, 7.0]])
    with Float64OnCpu() as watch:
        fit_scaler(values)
    assert watch.made == 1
