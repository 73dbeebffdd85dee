from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tutelage.data.builders import START, meter, untrained_student
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts
from tutelage.model.architectures import ARCHITECTURES
from tutelage.model.export import export_student, student_card
from tutelage.model.heads import Bins, forecast_of, mean_of, quantiles_of
from tutelage.model.inference import forecast_windows, load_student
from tutelage.model.kinds import Architecture, Head
from tutelage.model.layers import first_weights
from tutelage.model.networks import Forecaster
from tutelage.model.scaling import Scaler, Scalers

SPEC = meter()
LOOKBACK, HORIZON = 24, 3
PLAIN = Scaler((0.0, 0.0), (1.0, 1.0))
SCALED = Scaler((7.5, 20.0), (2.0, 8.0))


def forecast(network: Forecaster, bins: Bins, folder: Path, observed: np.ndarray, known: np.ndarray) -> Forecasts:
    """Export, read back, forecast."""
    export_student(network, bins, student_card(network, SPEC, trained_until=START), folder)
    return forecast_windows(load_student(folder), observed, known)


def windows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Observed values in their units, and calendar features."""
    noise = np.random.default_rng(count)
    observed = np.stack([noise.uniform(0, 15, (count, LOOKBACK)), noise.uniform(10, 30, (count, LOOKBACK))], axis=2)
    calendar = [noise.integers(0, most, (count, HORIZON)) for most in (24, 7, 2)]
    return observed.astype(np.float32), np.stack(calendar, axis=2).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> tuple[Forecaster, Bins]:
    return untrained_student(SPEC, lookback=LOOKBACK, horizon=HORIZON)


@pytest.fixture(scope="module")
def folder(trained: tuple[Forecaster, Bins], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "export"
    export_student(*trained, student_card(trained[0], SPEC, trained_until=START), path)
    return path


@pytest.mark.parametrize("count", [1, 7])
def test_export_student__equals_the_network(count: int, trained: tuple[Forecaster, Bins], folder: Path) -> None:
    network, bins = trained
    observed, known = windows(count)
    exported = forecast_windows(load_student(folder), observed, known)
    with torch.no_grad():
        logits = network(torch.from_numpy(observed), torch.from_numpy(known))
    probabilities = torch.softmax(logits[0].double(), dim=-1)
    edges = torch.tensor(bins.edges, dtype=torch.float64)
    levels = torch.tensor(QUANTILE_LEVELS, dtype=torch.float64)
    np.testing.assert_allclose(exported.mean, mean_of(probabilities, edges), atol=1e-5, rtol=1e-5)
    quantiles = quantiles_of(probabilities, edges, levels)
    assert exported.quantiles.shape == (count, HORIZON, 99)
    np.testing.assert_allclose(exported.quantiles, quantiles, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "mlp"])
def test_export_student__equals_a_network_of_every_architecture(
    architecture: Architecture, trained: tuple[Forecaster, Bins], tmp_path: Path
) -> None:
    scalers = Scalers(observed=PLAIN, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=PLAIN, minutes=PLAIN)
    with first_weights(0):
        network = Forecaster(replace(trained[0].config, architecture=architecture), scalers, 1).eval()
    export_student(network, trained[1], student_card(network, SPEC, trained_until=START), tmp_path / "export")
    for count in (1, 7):
        observed, known = windows(count)
        exported = forecast_windows(load_student(tmp_path / "export"), observed, known)
        with torch.no_grad():
            logits = network(torch.from_numpy(observed), torch.from_numpy(known))
        edges = torch.tensor(trained[1].edges, dtype=torch.float32)
        expected = mean_of(torch.softmax(logits[0], dim=-1), edges)
        np.testing.assert_allclose(exported.mean, expected, rtol=1e-4, atol=1e-4)
        levels = torch.tensor(QUANTILE_LEVELS)
        quantiles = quantiles_of(torch.softmax(logits[0], dim=-1), edges, levels)
        np.testing.assert_allclose(exported.quantiles, quantiles, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("head", ["quantiles", "point"])
def test_export_student__equals_a_network_of_every_head(
    head: Head, trained: tuple[Forecaster, Bins], tmp_path: Path
) -> None:
    scalers = Scalers(observed=SCALED, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=PLAIN, minutes=PLAIN)
    with first_weights(0):
        network = Forecaster(replace(trained[0].config, head=head), scalers, 1).eval()
    observed, known = windows(7)
    exported = forecast(network, trained[1], tmp_path / "export", observed, known)
    with torch.no_grad():
        outputs = network(torch.from_numpy(observed), torch.from_numpy(known))[0]
    edges, scale = torch.tensor(trained[1].edges), torch.tensor([7.5, 2.0])
    mean, quantiles = forecast_of(outputs, head, edges=edges, scale=scale)
    np.testing.assert_allclose(exported.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exported.quantiles, quantiles, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_export_student__equals_a_recursive_network(
    head: Head, trained: tuple[Forecaster, Bins], tmp_path: Path
) -> None:
    scaler = Scaler((7.5,), (2.0,))
    scalers = Scalers(observed=scaler, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=scaler, minutes=scaler)
    centres = tuple(np.linspace(-2.0, 2.0, len(trained[1])).tolist())
    with first_weights(0):
        config = replace(trained[0].config, observed=1, head=head, recursive=True, centres=centres)
        network = Forecaster(config, scalers, 1).eval()
    export_student(network, trained[1], student_card(network, SPEC, trained_until=START), tmp_path / "export")
    for count in (1, 7):
        observed, known = windows(count)
        exported = forecast_windows(load_student(tmp_path / "export"), observed[..., :1], known)
        with torch.no_grad():
            outputs = network(torch.from_numpy(observed[..., :1]), torch.from_numpy(known))[0]
        edges, scale = torch.tensor(trained[1].edges), torch.tensor([7.5, 2.0])
        mean, quantiles = forecast_of(outputs, head, edges=edges, scale=scale)
        np.testing.assert_allclose(exported.mean, mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(exported.quantiles, quantiles, rtol=1e-4, atol=1e-3)


def test_export_student__holds_the_scaler(trained: tuple[Forecaster, Bins], folder: Path, tmp_path: Path) -> None:
    network, bins = trained
    mean, std = network.observed_scaler.numpy()
    scalers = Scalers(observed=PLAIN, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=PLAIN, minutes=PLAIN)
    unscaled = Forecaster(network.config, scalers, 1)
    unscaled.load_state_dict(dict(network.named_parameters()), strict=False)
    observed, known = windows(7)
    by_hand = forecast(unscaled, bins, tmp_path / "unscaled", (observed - mean) / std, known)
    np.testing.assert_allclose(forecast_windows(load_student(folder), observed, known).mean, by_hand.mean, rtol=1e-4)


def test_export_student__answers_in_the_targets_unit(
    trained: tuple[Forecaster, Bins], folder: Path, tmp_path: Path
) -> None:
    network, bins = trained
    in_watts = Bins(tuple(1000 * edge for edge in bins.edges))
    kilowatts = forecast_windows(load_student(folder), *windows(7))
    watts = forecast(network, in_watts, tmp_path / "watts", *windows(7))
    np.testing.assert_allclose(watts.mean, 1000 * kilowatts.mean, rtol=1e-4)
    assert (kilowatts.quantiles >= bins.edges[0]).all()
    assert (kilowatts.quantiles <= bins.edges[-1]).all()
    assert (np.diff(kilowatts.quantiles) >= 0).all()


def test_student_card__says_what_a_caller_needs(folder: Path) -> None:
    student = load_student(folder)
    assert student.trained_until == START
    names = ("target", "unit", "lookback_hours", "horizon_hours", "timezone")
    assert [student.card[name] for name in names] == ["power_kw", "kW", LOOKBACK, HORIZON, "Europe/Paris"]
    assert student.card["observed"] == ["power_kw", "indoor_c"]
    assert student.card["holidays_until_year"] == START.year + 10
    assert {"2024-07-14", "2034-12-25"} < set(student.card["holidays"])


@pytest.mark.parametrize(("members", "privileged"), [(2, 0), (1, 5)], ids=["two members", "privileged inputs"])
def test_export_student__refuses_what_is_no_student(members: int, privileged: int, tmp_path: Path) -> None:
    network, bins = untrained_student(SPEC, lookback=LOOKBACK, horizon=HORIZON, members=members, privileged=privileged)
    with pytest.raises(ValueError, match="only a network of one member without privileged inputs is a student"):
        export_student(network, bins, student_card(network, SPEC, trained_until=START), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []
