"""What breaks while it runs, what comes in wrong, and what must not be promoted: `make chaos`.

Each is a case of a test: marked `fault` (something breaks; then all must be as if it had not), `bad_input` (it must
be refused in one sentence that names it, or be repaired by the rule) or `no_champion`. This runs them, and counts those
that pass. The figures of promotions by luck are those of the last `make bench-promotion`: a simulation, by its rows the
worst one; size and power are of test parts of 120 days, which is the default.

Writes benchmarks/results/reliability.json in less than an hour; the files of tests/chaos run two at a time. Files whose
cases all passed are not run again while the project's code, its tests and its specs stay the same. QUICK=1 leaves out
what is in `make chaos` alone and what needs the servers, takes some minutes, and writes under TUTELAGE_HOME.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runtime.paths import home
from runtime.provenance import OURS, ROOT, code_digest, git_commit
from tutelage.files import file_digest, read_json, value_digest, write_json

QUICK = os.environ.get("QUICK") == "1"
RESULTS = Path(__file__).parent / "results" / "reliability.json"
PROMOTION = RESULTS.with_name("promotion.json")
KINDS = ("fault", "bad_input", "no_champion")
SIDE_BY_SIDE = 2
"""Files of chaos at a time: a small retrain keeps one core busy."""
TEST_DAYS = 120
POWER = "1.0% better"
NOT_QUICK = " and not chaos and not service" if QUICK else ""


def cache_folder() -> Path:
    """Where passed cases are stored: under all that they run, so that those of other code are never counted.

    Tests start programs and read specs and templates, which no import names: each file of the packages and the tests
    counts, of the benchmarks this one only. The digest of a flow adds the versions of Python and of packages.
    """
    folders = (ROOT / name for name in (*OURS, "tests") if name != "benchmarks")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files.append(ROOT / "benchmarks" / "reliability.py")
    by_name = {str(path.relative_to(ROOT)): file_digest(path) for path in files if path.parent.name != "__pycache__"}
    by = {"files": by_name, "flow": code_digest("flows.retrain"), "quick": QUICK}
    return home() / "benchmarks" / f"reliability-{value_digest(by)[:12]}"


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


def groups_of(kind: str) -> list[list[Path]]:
    """The test files with cases of a kind: each of chaos by itself, the others by folder, whose fixtures they share."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", f"-m={kind}{NOT_QUICK}"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = dict.fromkeys(Path(line.partition(":")[0]) for line in listed.splitlines() if line.startswith("tests/"))
    groups: dict[tuple[str, ...], list[Path]] = {}
    for file in files:
        groups.setdefault(file.parts if "chaos" in file.parts else file.parts[:-1][:2], []).append(file)
    return list(groups.values())


def run_group(files: list[Path], kind: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of the files' cases of a kind, from the folder where they all passed before."""
    piece = folder / f"{kind}-{value_digest([[str(file), file_digest(ROOT / file)] for file in files])[:16]}.json"
    if piece.is_file():
        return list(read_json(piece))
    with TemporaryDirectory() as made:
        report = Path(made) / "report.xml"
        selected = [f"-m={kind}{NOT_QUICK}", f"--junitxml={report}", *map(str, files)]
        subprocess.run([sys.executable, "-m", "pytest", *selected], cwd=ROOT, check=False)
        rows = list(rows_of(report, kind))
    if all(row["passed"] for row in rows):
        write_json(piece, rows)
    return rows


def run_groups(groups: list[list[Path]], kind: str, folder: Path) -> list[list[dict[str, Any]]]:
    """The rows of all groups, in their order; those of chaos run side by side, the others have the machine alone."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        running = {
            number: pool.submit(run_group, files, kind, folder)
            for number, files in enumerate(groups)
            if "chaos" in files[0].parts
        }
        together = {number: future.result() for number, future in running.items()}
    return [
        together[number] if number in together else run_group(files, kind, folder)
        for number, files in enumerate(groups)
    ]


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
    folder = cache_folder()
    rows = [row for kind in KINDS for rows in run_groups(groups_of(kind), kind, folder) for row in rows]
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
