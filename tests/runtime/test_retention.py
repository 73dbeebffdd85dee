import os
from pathlib import Path

import pytest

from runtime.paths import home
from runtime.retention import CACHES, LEAVING, RESULTS, bytes_by_folder, mark_used, old_ones, remove
from tests.runtime.builders import put

LONG_AGO, THEN, LATER = 1e9, 1.1e9, 1.2e9


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))


def names(paths: object) -> set[str]:
    return {str(path.relative_to(home())) for path in paths}  # type: ignore[attr-defined]


def test_old_ones__are_those_that_nothing_has_used_since() -> None:
    put("data/readings/old.parquet", LONG_AGO)
    put("data/readings/new.parquet", LATER)
    put("trainings/teacher/old/network.json", LONG_AGO)
    put("trainings/teacher/in-use/network.json", LONG_AGO)
    mark_used(home() / "trainings/teacher/in-use")
    put("trainings/teacher/half/weights", LONG_AGO)
    put("trainings/teacher/half/later/weights", LATER)
    put("trainings/teacher/.left.part/weights", LONG_AGO)
    assert names(old_ones(CACHES, THEN)) == {
        "data/readings/old.parquet",
        "trainings/teacher/old",
        "trainings/teacher/.left.part",
    }
    assert names(old_ones(CACHES, LONG_AGO)) == set()


def test_old_ones__leave_what_is_named_and_the_newest_reports() -> None:
    for run in ("a", "b", "c"):
        put(f"runs/{run}/evaluation/evaluation.json", LONG_AGO)
        put(f"reports/{run}/report.html", LONG_AGO)
    (home() / "reports" / "latest").mkdir()
    (home() / "reports" / "latest" / "meter-1h").symlink_to("../b")
    os.utime(home() / "reports" / "latest", (LONG_AGO, LONG_AGO))
    assert names(old_ones(RESULTS, THEN, keep={"c"})) == {"runs/a", "reports/a"}


@pytest.mark.parametrize(
    "name", ["mlflow.db", "mlflow-artifacts/1/model", "prefect/x", "sources/a.csv", "clock/d.json"]
)
def test_old_ones__never_are_what_is_needed(name: str) -> None:
    put(name, LONG_AGO)
    assert list(old_ones((*CACHES, *RESULTS), THEN)) == []


def test_mark_used__makes_nothing() -> None:
    mark_used(home() / "gone")
    assert not (home() / "gone").exists()


def test_bytes_by_folder__counts_all_that_is_in_it() -> None:
    put("trainings/teacher/a/weights", LONG_AGO)
    put("trainings/teacher/a/deep/weights", LONG_AGO)
    put("data/recent/b.parquet", LONG_AGO)
    assert bytes_by_folder(old_ones(CACHES, THEN)) == {"trainings/teacher": 20, "data/recent": 10}


@pytest.mark.fault
def test_remove__takes_what_a_killed_one_left_along() -> None:
    put("trainings/teacher/a/weights", LONG_AGO)
    put("data/recent/b.parquet", LONG_AGO)
    left = put(f"{LEAVING}/of-a-killed-one/c/weights", LONG_AGO)
    remove([*old_ones(CACHES, THEN), home() / "data/recent/vanished"])
    assert not left.exists()
    assert [path for path in home().rglob("*") if path.is_file()] == []
    remove([])
