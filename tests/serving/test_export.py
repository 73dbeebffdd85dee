import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tests.data.builders import HOUR, START, meter, meter_with_plan, random_readings, untrained_student
from tutelage.bodies import BODIES
from tutelage.errors import DataError
from tutelage.export import export_student, forecast_windows, load_student, student_card, student_window
from tutelage.fit import seeded
from tutelage.heads import QUANTILE_LEVELS, Bins, forecast_of, mean_of, quantiles_of
from tutelage.metrics import Forecasts
from tutelage.networks import Forecaster, Scaler, Scalers
from tutelage.recipe import Architecture, Head

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
def test_graph__equals_the_network(count: int, trained: tuple[Forecaster, Bins], folder: Path) -> None:
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


@pytest.mark.parametrize("architecture", [name for name in BODIES if name != "mlp"])
def test_graph__equals_a_network_of_every_architecture(
    architecture: Architecture, trained: tuple[Forecaster, Bins], tmp_path: Path
) -> None:
    scalers = Scalers(observed=PLAIN, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=PLAIN, minutes=PLAIN)
    with seeded(0, torch.device("cpu")):
        network = Forecaster(replace(trained[0].shape, architecture=architecture), scalers, 1).eval()
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
def test_graph__equals_a_network_of_every_head(head: Head, trained: tuple[Forecaster, Bins], tmp_path: Path) -> None:
    scalers = Scalers(observed=SCALED, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=PLAIN, minutes=PLAIN)
    with seeded(0, torch.device("cpu")):
        network = Forecaster(replace(trained[0].shape, head=head), scalers, 1).eval()
    observed, known = windows(7)
    exported = forecast(network, trained[1], tmp_path / "export", observed, known)
    with torch.no_grad():
        outputs = network(torch.from_numpy(observed), torch.from_numpy(known))[0]
    edges, scale = torch.tensor(trained[1].edges), torch.tensor([7.5, 2.0])
    mean, quantiles = forecast_of(outputs, head, edges=edges, scale=scale)
    np.testing.assert_allclose(exported.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exported.quantiles, quantiles, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_graph__equals_a_rolled_network(head: Head, trained: tuple[Forecaster, Bins], tmp_path: Path) -> None:
    one = Scaler((7.5,), (2.0,))
    scalers = Scalers(observed=one, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=one, minutes=one)
    centres = tuple(np.linspace(-2.0, 2.0, len(trained[1])).tolist())
    with seeded(0, torch.device("cpu")):
        shape = replace(trained[0].shape, observed=1, head=head, rolled=True, centres=centres)
        network = Forecaster(shape, scalers, 1).eval()
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


def test_graph__holds_the_scaler(trained: tuple[Forecaster, Bins], folder: Path, tmp_path: Path) -> None:
    network, bins = trained
    mean, std = network.observed_scaler.numpy()
    scalers = Scalers(observed=PLAIN, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=PLAIN, minutes=PLAIN)
    unscaled = Forecaster(network.shape, scalers, 1)
    unscaled.load_state_dict(dict(network.named_parameters()), strict=False)
    observed, known = windows(7)
    by_hand = forecast(unscaled, bins, tmp_path / "unscaled", (observed - mean) / std, known)
    np.testing.assert_allclose(forecast_windows(load_student(folder), observed, known).mean, by_hand.mean, rtol=1e-4)


def test_graph__answers_in_the_targets_unit(trained: tuple[Forecaster, Bins], folder: Path, tmp_path: Path) -> None:
    network, bins = trained
    in_watts = Bins(tuple(1000 * edge for edge in bins.edges))
    kilowatts = forecast_windows(load_student(folder), *windows(7))
    watts = forecast(network, in_watts, tmp_path / "watts", *windows(7))
    np.testing.assert_allclose(watts.mean, 1000 * kilowatts.mean, rtol=1e-4)
    assert (kilowatts.quantiles >= bins.edges[0]).all()
    assert (kilowatts.quantiles <= bins.edges[-1]).all()
    assert (np.diff(kilowatts.quantiles) >= 0).all()


def test_card__says_what_a_caller_needs(folder: Path) -> None:
    student = load_student(folder)
    assert student.trained_until == START
    told = {name: student.card[name] for name in ("target", "unit", "lookback_hours", "horizon_hours", "timezone")}
    assert list(told.values()) == ["power_kw", "kW", LOOKBACK, HORIZON, "Europe/Paris"]
    assert student.card["observed"] == ["power_kw", "indoor_c"]
    assert student.card["holidays_until_year"] == START.year + 10
    assert {"2024-07-14", "2034-12-25"} < set(student.card["holidays"])


@pytest.mark.parametrize(("members", "privileged"), [(2, 0), (1, 5)], ids=["two members", "privileged inputs"])
def test_export__refuses_what_is_no_student(members: int, privileged: int, tmp_path: Path) -> None:
    network, bins = untrained_student(SPEC, lookback=LOOKBACK, horizon=HORIZON, members=members, privileged=privileged)
    with pytest.raises(ValueError, match="only a network of one member without privileged inputs is a student"):
        export_student(network, bins, student_card(network, SPEC, trained_until=START), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


CARD = {"lookback_hours": LOOKBACK, "horizon_hours": HORIZON, "observed": ["power_kw", "indoor_c"], "known_future": []}
PLANNED = meter_with_plan()
PLANNED_CARD = CARD | {"known_future": ["planned_c"]}
ISSUE = START + dt.timedelta(days=1, hours=12)
READINGS = random_readings(SPEC, days=3)


def without(readings: pl.DataFrame, start: dt.datetime, minutes: int) -> pl.DataFrame:
    """The readings with some minutes of the power null."""
    gone = pl.col("time_utc").is_between(start, start + dt.timedelta(minutes=minutes), closed="left")
    return readings.with_columns(pl.when(~gone).then("power_kw").alias("power_kw"))


def test_student_window__holds_hourly_means_before_the_issue_time() -> None:
    observed, known = student_window(without(READINGS, ISSUE - HOUR, 6), SPEC, ISSUE, CARD)
    last = READINGS.filter(pl.col("time_utc").is_between(ISSUE - HOUR, ISSUE, closed="left"))
    assert observed.shape == (LOOKBACK, 2)
    assert observed[-1].tolist() == pytest.approx([last["power_kw"][6:].mean(), last["indoor_c"].mean()])
    assert known[:, 0].tolist() == [14.0, 15.0, 16.0]  # 12:00 UTC is 14:00 in Paris


@pytest.mark.parametrize(("start", "minutes"), [(ISSUE - HOUR, 7), (ISSUE - LOOKBACK * HOUR, 60)])
def test_student_window__refuses_an_hour_that_is_null(start: dt.datetime, minutes: int) -> None:
    with pytest.raises(DataError, match=r"^at 2024-07-02 12:00 UTC only 23 of 24 past hours can be used$"):
        student_window(without(READINGS, start, minutes), SPEC, ISSUE, CARD)


@pytest.mark.parametrize("issue", [START + 23 * HOUR, START, START + 100 * HOUR], ids=["short", "none", "long ago"])
def test_student_window__refuses_a_short_past(issue: dt.datetime) -> None:
    with pytest.raises(DataError, match=r"of 24 past hours can be used$"):
        student_window(READINGS, SPEC, issue, CARD)


def test_student_window__holds_what_is_known_of_each_hour_ahead() -> None:
    readings = random_readings(PLANNED, days=3)
    ahead = readings.filter(pl.col("time_utc").is_between(ISSUE, ISSUE + HORIZON * HOUR, closed="left"))
    _, known = student_window(readings, PLANNED, ISSUE, PLANNED_CARD)
    np.testing.assert_allclose(known[:, 3], ahead["planned_c"].to_numpy().reshape(HORIZON, 60).mean(axis=1))


@pytest.mark.parametrize("absent", [[0, 1, 2], [2], [1]], ids=["all hours", "the last", "one between"])
def test_student_window__refuses_an_unknown_hour_ahead(absent: list[int]) -> None:
    hours = [ISSUE + hour * HOUR for hour in absent]
    readings = random_readings(PLANNED, days=3).filter(~pl.col("time_utc").dt.truncate("1h").is_in(hours))
    readings = readings.filter(pl.col("time_utc") < ISSUE + HORIZON * HOUR)
    with pytest.raises(DataError, match="2024-07-02 12:00 UTC"):
        student_window(readings, PLANNED, ISSUE, PLANNED_CARD)
