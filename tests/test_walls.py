"""The import rules hold, and import-linter sees each kind of import against them."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.style import PRODUCT, ROOT

CONFIG = ROOT / "pyproject.toml"
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads(CONFIG.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
}
ONE_WAY = "Imports go one way: deployments, flows, tasks, runtime, schemas, tutelage"
CORE = "Within the core, each wing imports only those before it: ground, data, model, distil, judge"
STAGES = "The stages of a flow know nothing of each other"
GROUND = "The ground needs no torch"
SERVING_FLOWS = "Serving flows need no torch"


class Breach(NamedTuple):
    """An import that contracts forbid, and the file to add it to."""

    contracts: set[str]
    file: str
    statement: str


BREACHES = [
    Breach({ONE_WAY}, "tutelage/files.py", "import runtime.paths"),
    Breach({ONE_WAY}, "runtime/paths.py", "import deployments.databases"),
    Breach({ONE_WAY}, "schemas/manifests.py", "import runtime.paths"),
    Breach({CORE}, "tutelage/data/windows.py", "from tutelage.judge import metrics"),
    Breach({CORE}, "tutelage/model/networks.py", "import tutelage.distil.recipe"),
    Breach({CORE}, "tutelage/errors.py", "from tutelage.files import read_json"),
    Breach({"The core knows neither Prefect nor MLflow nor pandera"}, "tutelage/judge/verdict.py", "import mlflow"),
    Breach({GROUND, SERVING_FLOWS}, "tutelage/forecasts.py", "from torch import Tensor"),
    Breach({STAGES}, "tasks/retrain/features.py", "from tasks.retrain.ingest import ingest"),
    Breach({STAGES}, "tasks/study/scores.py", "import tasks.study.labels"),
    Breach({"The registered model stands alone"}, "serving/forecaster.py", "from tutelage.files import read_json"),
    Breach({SERVING_FLOWS}, "tasks/forecast/issue.py", "import torch"),
    Breach({SERVING_FLOWS}, "tutelage/judge/monitoring.py", "from tutelage.model import networks"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PRODUCT:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def lint(root: Path) -> tuple[int, dict[str, str]]:
    """The exit status of lint-imports on a copy of the packages, and KEPT or BROKEN by contract."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache", "--config", str(CONFIG)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    states = dict(re.findall(r"^(.+) (KEPT|BROKEN)$", done.stdout, re.MULTILINE))
    assert states.keys() == CONTRACTS.keys(), done.stdout + done.stderr
    return done.returncode, states


def test_imports__follow_every_contract(copy: Path) -> None:
    assert lint(copy) == (0, dict.fromkeys(CONTRACTS, "KEPT"))


@pytest.mark.parametrize("breach", BREACHES, ids=[f"{b.file}: {b.statement}" for b in BREACHES])
def test_imports__against_a_contract_are_seen(breach: Breach, copy: Path) -> None:
    file = copy / breach.file
    file.write_text(f"{file.read_text(encoding='utf-8')}\n{breach.statement}\n", encoding="utf-8")
    status, states = lint(copy)
    assert status == 1
    assert {name for name, state in states.items() if state == "BROKEN"} == breach.contracts


def test_breaches__cover_every_contract() -> None:
    assert set().union(*(breach.contracts for breach in BREACHES)) == CONTRACTS.keys()


def _is_stage(node: ast.AST) -> bool:
    """Whether a statement is a function with the decorator stage or cached_stage."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    names = {ast.unparse(each.func) for each in decorators if isinstance(each, ast.Call)}
    return bool(names & {"stage", "cached_stage"})


def test_stages__are_all_in_the_contract() -> None:
    """Except `run`, which opens a flow's MLflow runs and is shared."""
    stages = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "tasks").rglob("*.py")
        if path.name != "run.py" and any(map(_is_stage, ast.parse(path.read_text(encoding="utf-8")).body))
    }
    assert stages == set(CONTRACTS[STAGES]["modules"])
