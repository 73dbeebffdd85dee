"""A real MLflow database in a home that is moved."""

from pathlib import Path

import mlflow
import pytest

from runtime.moved import follow_home


def database(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a run that has a file, in a folder with another name than when the run ended."""
    before, after = tmp_path / "before_it", tmp_path / "after it"
    before.mkdir()
    client = mlflow.MlflowClient(database(before))
    for name, place in (("ours", before / "mlflow-artifacts" / "ours"), ("of_others", tmp_path / "elsewhere")):
        experiment = client.create_experiment(name, artifact_location=place.as_uri())
        client.log_text(client.create_run(experiment, run_name="first").info.run_id, "a report", "report.txt")
    before.rename(after)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database(after))
    return after


def locations(home: Path, experiment: str) -> list[str]:
    client = mlflow.MlflowClient(database(home))
    found = client.get_experiment_by_name(experiment)
    return [found.artifact_location, *(run.info.artifact_uri for run in client.search_runs([found.experiment_id]))]


@pytest.mark.fault
def test_follow_home__files_are_read_and_written_where_they_are(moved: Path, caplog: pytest.LogCaptureFixture) -> None:
    follow_home(moved)
    client = mlflow.MlflowClient(database(moved))
    experiment = client.get_experiment_by_name("ours").experiment_id
    [first] = client.search_runs([experiment])
    assert Path(client.download_artifacts(first.info.run_id, "report.txt")).read_text() == "a report"
    second = client.create_run(experiment)
    client.log_text(second.info.run_id, "another report", "report.txt")
    assert len(list((moved / "mlflow-artifacts").rglob("report.txt"))) == 2
    assert not (moved.parent / "before_it").exists()
    [line] = caplog.messages
    assert "the home was moved" in line


def test_follow_home__leaves_what_is_not_in_the_home(moved: Path) -> None:
    before = locations(moved, "of_others")
    follow_home(moved)
    assert locations(moved, "of_others") == before


def test_follow_home__leaves_another_server_s_database(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    before = locations(moved, "ours")
    follow_home(moved)
    assert locations(moved, "ours") == before


def test_follow_home__without_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database(tmp_path))
    follow_home(tmp_path)
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "mlflow.db").touch()
    follow_home(tmp_path)
    assert (tmp_path / "mlflow.db").stat().st_size == 0
