import threading
from pathlib import Path

import pytest

from benchmarks import reliability
from benchmarks.reliability import PROMOTION, cache_folder, rows_of, run_groups, summarise
from runtime.provenance import OURS
from tutelage.files import read_json

REPORT = """<testsuites><testsuite>
<testcase classname="tests.chaos.test_stages" name="test_kill_9[teacher-1]" time="12.34">
<properties><property name="hit" value="teacher"/></properties></testcase>
<testcase classname="tests.chaos.test_outages" name="test_disk[teacher]" time="1"><skipped message="no"/></testcase>
<testcase classname="tests.chaos.test_outages" name="test_memory" time="2"><failure message="it died"/></testcase>
<testcase classname="tests.chaos.test_outages" name="test_mlflow" time="3"><error message="no home"/></testcase>
</testsuite></testsuites>"""


def test_rows_of__a_skipped_case_was_not_tried(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT, encoding="utf-8")
    rows = list(rows_of(report, "fault"))
    assert [(row["name"], row["passed"]) for row in rows] == [
        ("kill_9[teacher-1]", True),
        ("memory", False),
        ("mlflow", False),
    ]
    assert rows[0] | {"hit": "teacher", "seconds": 12.3, "where": "tests.chaos.test_stages"} == rows[0]


def test_summarise__counts_each_kind_by_itself() -> None:
    kinds = [("fault", True), ("fault", False), ("bad_input", True), ("no_champion", True), ("no_champion", False)]
    figures = summarise([{"kind": kind, "passed": passed} for kind, passed in kinds], read_json(PROMOTION))
    assert (figures["faults_tried"], figures["faults_survived"]) == (2, 1)
    assert (figures["inputs_tried"], figures["inputs_clear"]) == (1, 1)
    assert (figures["promotions_tried"], figures["wrong_promotions"]) == (2, 1)
    assert 0 < figures["null_promotions_a_year"] < 0.05
    assert 0.02 < figures["size_at_nominal_2_5"] < 0.05 < figures["power"] <= 1


def test_run_groups__are_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of chaos run at a time: each waits for the other to begin."""
    both = threading.Barrier(2, timeout=20)

    def run(files: list[Path], kind: str, folder: Path) -> list[dict[str, str]]:
        if "chaos" in files[0].parts:
            both.wait()
        return [{"kind": kind, "where": str(files[0])}]

    monkeypatch.setattr("benchmarks.reliability.run_group", run)
    names = ["tests/chaos/test_homes.py", "tests/flows/test_retrain.py", "tests/chaos/test_stages.py"]
    rows = run_groups([[Path(name)] for name in names], "fault", tmp_path)
    assert [row["where"] for [row] in rows] == names


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("deployments/up.py", True),
        ("serving/forecaster.py", True),
        ("flows/new.py", True),
        ("tasks/forecast/issue.py", True),
        ("tasks/retrain/templates/report.html", True),
        ("tests/chaos/servers.py", True),
        ("deployments/datasets/household.yaml", True),
        ("benchmarks/reliability.py", True),
        ("benchmarks/homes.py", False),
        ("docs/reliability.md", False),
        ("tests/__pycache__/servers.cpython-312.pyc", False),
    ],
)
def test_cache_folder__is_another_once_anything_that_is_tested_changes(
    file: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reliability, "ROOT", tmp_path)
    for name in (*(f"{package}/__init__.py" for package in OURS), "benchmarks/reliability.py", file):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    before = cache_folder()
    assert cache_folder() == before
    (tmp_path / file).write_text("# changed", encoding="utf-8")
    assert (cache_folder() != before) is counts


def test_cache_folder__fewer_cases_of_a_file_are_not_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    every_case = cache_folder()
    monkeypatch.setattr(reliability, "QUICK", True)
    assert cache_folder() != every_case
