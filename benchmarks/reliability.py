"""What breaks while it runs, what comes in wrong, and what must not be promoted: `make chaos`.

Each is a case of a test: marked `fault` (something breaks; then all must be as if it had not), `bad_input` (it must
be refused in one sentence that names it, or be repaired by the rule) or `no_champion`. This runs them, and counts those
that pass. The figures of promotions by luck are those of the last `make bench-promotion`: a simulation, by its rows the
worst one; size and power are of test parts of 120 days, which is the default.

Writes benchmarks/results/reliability.json, about an hour. QUICK=1 leaves out what is in `make chaos` alone and what
needs the servers, takes some minutes, and writes under TUTELAGE_HOME.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runtime.paths import home
from runtime.provenance import ROOT, git_commit
from tutelage.files import read_json, write_json

QUICK = os.environ.get("QUICK") == "1"
RESULTS = Path(__file__).parent / "results" / "reliability.json"
PROMOTION = RESULTS.with_name("promotion.json")
KINDS = ("fault", "bad_input", "no_champion")
TEST_DAYS = 120
POWER = "1.0% better"
NOT_QUICK = " and not chaos and not service" if QUICK else ""


def rows_of(report: Path, kind: str) -> Iterator[dict[str, Any]]:
    """A row for each case in a report of pytest (JUnit's XML), skipped ones left out."""
    for case in ET.parse(report).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        properties = {each.attrib["name"]: each.attrib["value"] for each in case.iter("property")}
        yield {
            "kind": kind,
            "where": case.attrib["classname"],
            "name": case.attrib["name"].removeprefix("test_"),
            "passed": case.find("failure") is None and case.find("error") is None,
            "seconds": round(float(case.attrib["time"]), 1),
            **properties,
        }


def run_kind(kind: str) -> list[dict[str, Any]]:
    """Run the cases of a kind; their rows."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        selected = [f"-m={kind}{NOT_QUICK}", f"--junitxml={report}"]
        subprocess.run([sys.executable, "-m", "pytest", *selected], cwd=ROOT, check=False)
        return list(rows_of(report, kind))


def summarise(rows: list[dict[str, Any]], promotion: dict[str, Any]) -> dict[str, Any]:
    """The counts of the rows, and the figures of the simulated promotions and verdicts."""

    def count(kind: str, *, passed: bool) -> int:
        return sum(row["kind"] == kind and row["passed"] is passed for row in rows)

    verdicts = [row for row in promotion["one_verdict"] if row["days"] == TEST_DAYS]
    return {
        "faults_tried": count("fault", passed=True) + count("fault", passed=False),
        "faults_survived": count("fault", passed=True),
        "inputs_tried": count("bad_input", passed=True) + count("bad_input", passed=False),
        "inputs_clear": count("bad_input", passed=True),
        "promotions_tried": count("no_champion", passed=True) + count("no_champion", passed=False),
        "wrong_promotions": count("no_champion", passed=False),
        "null_promotions_a_year": max(row["null_promotions_a_year"] for row in promotion["rows"]),
        "size_at_nominal_2_5": max(row["size_at_nominal_2_5"] for row in verdicts),
        "power": min(row["power"][POWER] for row in verdicts),
    }


def main() -> int:
    """Run all, write the JSON and print the counts; 0 where everything passed."""
    rows = [row for kind in KINDS for row in run_kind(kind)]
    figures = summarise(rows, read_json(PROMOTION))
    path = home() / "benchmarks" / RESULTS.name if QUICK else RESULTS
    write_json(path, {"commit": git_commit(), **figures, "rows": rows})
    for name, value in figures.items():
        print(f"{name:<24}{value}")
    failed = [row for row in rows if not row["passed"]]
    print(*(f"{row['kind']}: {row['where']} {row['name']}" for row in failed), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
