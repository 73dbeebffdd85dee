from pathlib import Path

from benchmarks.reliability import PROMOTION, rows_of, summarise
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
