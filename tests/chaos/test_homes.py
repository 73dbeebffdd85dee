"""Homes that are moved, shared, damaged; champions that are deleted; retrains at once; recipes that can't learn."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.chaos.retrains import (
    FORECAST,
    NAME,
    Retrain,
    client_of,
    make_champion,
    new_home,
    quick_parameters,
    require_whole_files,
    runs_of,
    servers_of,
    versions_of,
)
from tests.tutelage.builders import small_recipe
from tutelage.model.kinds import Budget

pytestmark = [pytest.mark.chaos, pytest.mark.fault]

ROLLBACK = """
from flows.rollback import rollback
from schemas.promotion import RollbackParameters
rollback(RollbackParameters(name="chaos-1h", version=1, by="ada", why="the champion is gone"))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one version, which is the champion."""
    home = new_home(tmp_path_factory.mktemp("finished") / "home")
    Retrain(home, quick_parameters(0)).succeed()
    make_champion(home, 1)
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of it somewhere else: a home that was moved, for each test."""
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder, symlinks=True)
    spec = folder / "datasets" / "chaos.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace(str(finished), str(folder)), encoding="utf-8")
    return folder


def test_home__moved(home: Path, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    Retrain(home, quick_parameters(0), FORECAST).succeed()
    Retrain(home, quick_parameters(1)).succeed()
    assert len(versions_of(home)) == 2
    assert {run.info.status for run in runs_of(home)} == {"FINISHED"}
    artifacts = list((home / "mlflow-artifacts").rglob("record.json"))
    assert len(artifacts) == 2
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before, "nothing goes to the old place"


def test_champion__its_version_is_deleted(home: Path) -> None:
    client_of(home).delete_model_version(NAME, "1")
    forecast = Retrain(home, quick_parameters(0), FORECAST)
    assert forecast.process.wait(120) != 0
    assert f"{NAME} has no champion yet: retrain it first" in forecast.said
    Retrain(home, quick_parameters(1)).succeed()
    assert [version.version for version in versions_of(home)] == ["2"] or [v.version for v in versions_of(home)] == [2]


def test_champion__its_files_are_gone(home: Path) -> None:
    Retrain(home, quick_parameters(1)).succeed()
    make_champion(home, 2)
    [gone] = [version for version in versions_of(home) if str(version.version) == "2"]
    shutil.rmtree(home / "mlflow-artifacts" / NAME / "models" / gone.source.removeprefix("models:/"))
    forecast = Retrain(home, quick_parameters(0), FORECAST)
    assert forecast.process.wait(120) != 0
    assert f"{NAME}/2 can't be downloaded from the registry: its files are gone" in forecast.said
    first = Retrain(home, quick_parameters(2))
    assert first.process.wait(300) != 0
    assert f"{NAME}/2 can't be downloaded from the registry: its files are gone" in first.said
    assert "ingest" not in first.finished, "nothing was trained for a comparison that can't be"
    Retrain(home, quick_parameters(0), ROLLBACK).succeed()
    Retrain(home, quick_parameters(0), FORECAST).succeed()
    Retrain(home, quick_parameters(2)).succeed()


def test_same_retrain__twice_at_once(home: Path) -> None:
    first = Retrain(home, quick_parameters(1))
    first.begins("ingest")
    first.process.send_signal(signal.SIGSTOP)  # so that it doesn't end before the second begins
    second = Retrain(home, quick_parameters(1))
    assert second.process.wait(120) != 0
    first.process.send_signal(signal.SIGCONT)
    assert "the same work, with the same parameters, is already running here; wait for it" in second.said
    first.succeed()
    assert len(versions_of(home)) == 2
    assert {run.info.status for run in runs_of(home)} == {"FINISHED"}


def test_different_retrains__at_once(home: Path) -> None:
    together = [Retrain(home, quick_parameters(seed)) for seed in (1, 2, 3)]
    for retrain in together:
        retrain.succeed()
    assert len(versions_of(home)) == 4
    assert {run.info.status for run in runs_of(home)} == {"FINISHED"}
    require_whole_files(home)


def test_files__of_finished_stages_are_lost(home: Path) -> None:
    Retrain(home, quick_parameters(1)).succeed()
    for folder in ("data", "trainings", "results", "runs", "reports"):
        shutil.rmtree(home / folder)
    Retrain(home, quick_parameters(2)).succeed()
    assert len(versions_of(home)) == 3
    Retrain(home, quick_parameters(0), FORECAST).succeed()


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_checkpoint__is_damaged(home: Path, damage: str) -> None:
    parameters = quick_parameters(1)
    first = Retrain(home, parameters)
    first.wait_for("teacher-block-2: epoch")
    first.send()
    [*checkpoints] = (home / "checkpoints").rglob("*.safetensors")
    assert checkpoints
    for path in checkpoints:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "noise": bytes(len(whole))}[damage])
    Retrain(home, parameters).succeed()
    assert {run.info.status for run in runs_of(home)} == {"FINISHED"}
    assert not servers_of(home)


def test_training__in_steps_that_are_too_large(home: Path) -> None:
    """It ends with a sentence or as a challenger, and the champion stays."""
    wild = Budget(epochs=4, patience=4, batch_size=32, learning_rate=0.1, dropout=0.0)
    recipe = small_recipe(bins=12, base="none", teacher_training=wild, student_training=wild)
    Retrain(home, quick_parameters(1, recipe=recipe)).process.wait(300)
    assert "RUNNING" not in {run.info.status for run in runs_of(home)}
    client = client_of(home)
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "1"
    require_whole_files(home)
