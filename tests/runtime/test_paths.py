import os
from pathlib import Path
from unittest import mock

import pytest

from runtime.paths import datasets_folder, home, prepare_environment, run_folder


def test_home__is_the_variables_folder_or_var(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUTELAGE_HOME", "elsewhere")
    assert home() == tmp_path / "elsewhere"
    monkeypatch.delenv("TUTELAGE_HOME")
    assert home() == tmp_path / "var"


def test_datasets_folder__is_that_of_the_checkout_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUTELAGE_DATASETS")
    assert (datasets_folder() / "household.yaml").is_file()
    monkeypatch.setenv("TUTELAGE_DATASETS", str(tmp_path))
    assert datasets_folder() == tmp_path


def test_run_folder__is_one_for_each_run_and_stage() -> None:
    assert run_folder("a", "evaluation") == home() / "runs" / "a" / "evaluation"
    assert len({run_folder(run, stage) for run in ("a", "b") for stage in ("c", "d")}) == 4


def test_prepare_environment__keeps_files_under_home_and_existing_settings(tmp_path: Path) -> None:
    given = {"TUTELAGE_HOME": str(tmp_path / "new"), "MLFLOW_TRACKING_URI": "http://elsewhere"}
    with mock.patch.dict(os.environ, given, clear=True):
        prepare_environment()
        prepared = dict(os.environ)
    assert (tmp_path / "new").is_dir()
    assert prepared["PREFECT_HOME"] == str(tmp_path / "new" / "prefect")
    assert prepared["PREFECT_LOCAL_STORAGE_PATH"] == str(tmp_path / "new" / "results")
    assert prepared["MLFLOW_TRACKING_URI"] == "http://elsewhere"
    with mock.patch.dict(os.environ, given, clear=True):
        del os.environ["MLFLOW_TRACKING_URI"]
        prepare_environment()
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/new/mlflow.db"
