"""The commands of a terminal: `make data` and `make retrain`."""

import logging
import re
from pathlib import Path

import pytest
import yaml

import flows.data
import flows.retrain
from flows.data import look_at_data, seen_text
from flows.terminal import given_parameters, sentences
from runtime.paths import datasets_folder, home
from runtime.registry import client
from schemas.retrain import RetrainParameters
from tests.flows.test_retrain import SMALL
from tests.household import write_slice
from tutelage.errors import DataError, SpecError
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES

pytestmark = pytest.mark.usefixtures("prefect_server")

NAME = "looked-at"
ARGUMENTS = [f"dataset={NAME}", "horizon_hours=6", "lookback_hours=24", "history_days=24", "test_days=14"]


@pytest.fixture(scope="module", autouse=True)
def dataset(prefect_server: None) -> None:
    write_slice(datasets_folder(), name=NAME, days=40)


def test_data__shows_quality_parts_and_simple_forecasts_without_a_training() -> None:
    trained = set(home().glob("trainings/*/*"))
    seen = look_at_data(given_parameters(ARGUMENTS, RetrainParameters))
    assert set(home().glob("trainings/*/*")) == trained
    assert set(seen.preview.scores) == set(BASELINES)
    assert seen.preview.within_steps == pytest.approx(0.403, abs=0.01)
    text = seen_text(seen)
    assert text.startswith("looked-at-6h: 57600 readings, 960 hours, 0 null")
    best = min(seen.preview.scores, key=lambda name: seen.preview.scores[name].crps)
    first = re.search(r"forecast .*?═╡\n│ (.*?) +┆", text, re.DOTALL)
    assert first is not None
    assert first.group(1) == best.label
    assert "is 24 days; the 2 days before it are left unused (history_days)." in text
    for part in ("missing_value", "validation", "100.0%", "CRPS [kW]", "% of the variance of global_active_power_kw"):
        assert part in text


def test_data__of_hours_says_that_there_is_nothing_within(capsys: pytest.CaptureFixture[str]) -> None:
    path = datasets_folder() / f"{NAME}.yaml"
    content = yaml.safe_load(path.read_text())
    kept = [column for column in content["columns"] if column["role"] == "observed"]
    quality = {"off_grid_time": {"tolerance": 1}}
    hourly = content | {"name": "hours", "raw_step": "PT1H", "columns": kept, "quality": quality}
    (datasets_folder() / "hours.yaml").write_text(yaml.safe_dump(hourly))
    assert flows.data.main([argument.replace(NAME, "hours") for argument in ARGUMENTS]) == 0
    shown = capsys.readouterr().out
    assert "There are no readings within the hours" in shown
    assert Contender.RIDGE.label in shown


@pytest.mark.parametrize("command", [flows.data.main, flows.retrain.main])
def test_command__shows_a_fault_as_a_sentence(
    command: object, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(command)
    with caplog.at_level(logging.ERROR):
        assert command([*ARGUMENTS, "test_days=200"]) == 1
    shown = capsys.readouterr()
    assert "\nthe history is too short: 24 days of history and 200 of test are requested" in shown.err
    assert "Traceback" not in shown.err + shown.out + caplog.text
    assert command(["dataset=nowhere"]) == 1
    assert "there is no dataset spec nowhere.yaml; known datasets: " in capsys.readouterr().err


def test_retrain__from_a_terminal_prints_the_verdict(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_RECIPES", str(tmp_path))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL.model_dump(mode="json")))
    small = ["preset=small", "replicates=1", "unprivileged=false", "refit=false", "device=cpu"]
    assert flows.retrain.main([*ARGUMENTS, *small]) == 0
    shown = capsys.readouterr().out
    assert "looked-at-6h: " in shown
    assert "chosen " in shown
    report = home() / "reports" / "latest" / "looked-at-6h" / "report.html"
    assert f"Report:  {report}" in shown
    assert report.is_file()
    assert client().get_registered_model("looked-at-6h").latest_versions


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dataset="], "dataset: give it a value, such as dataset=household"),
        (["household"], "household: give it a value"),
        (
            ["horizon_hours=soon", "colour=3"],
            "parameters: horizon_hours: Input should .* integer.*; colour: unknown key",
        ),
        (["preset=nothing"], "parameters: preset: there is no 'nothing'; known are custom"),
    ],
)
def test_given_parameters__refuses_with_a_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        given_parameters(arguments, RetrainParameters)


def test_given_parameters__are_those_of_the_form() -> None:
    given = given_parameters(["dataset=ett", "horizon_hours=1", "history_days=none", "refit=false"], RetrainParameters)
    assert given == RetrainParameters(dataset="ett", horizon_hours=1, history_days=None, refit=False)


def test_sentences__let_other_errors_through_with_their_traceback() -> None:
    with sentences():
        raise DataError("in one sentence")
    with pytest.raises(KeyError), sentences():
        raise KeyError
