import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import provenance
from runtime.provenance import code_digest, git_commit, imported_files

TEACHERS, STUDENTS = "tasks.retrain.teachers", "tasks.retrain.students"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty checkout, whose digests are computed anew."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    code_digest.cache_clear()
    yield tmp_path
    code_digest.cache_clear()


@pytest.fixture
def checkout(root: Path) -> Path:
    """A copy of the product's packages."""
    for name in ("tutelage", "runtime", "schemas", "tasks"):
        shutil.copytree(Path(__file__).parents[2] / name, root / name, ignore=shutil.ignore_patterns("__py*"))
    return root


def changed_by(change: Callable[[], object], *modules: str) -> list[bool]:
    """Whether a change has changed the digest of each module."""
    before = [code_digest(module) for module in modules]
    change()
    code_digest.cache_clear()
    return [code_digest(module) != digest for module, digest in zip(modules, before, strict=True)]


def comment(path: Path) -> Callable[[], object]:
    """Add a comment to a file."""
    assert path.is_file()
    return lambda: path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "changed", "unchanged"),
    [
        ("tutelage/judge/plots.py", "tasks.monitor.verify", TEACHERS),
        ("runtime/registered_teacher.py", TEACHERS, "tasks.retrain.features"),
        ("runtime/caching.py", TEACHERS, "runtime.leaks"),
        ("tutelage/distil/losses/output.py", STUDENTS, "tasks.monitor.verify"),
        ("tutelage/distil/boosted.py", TEACHERS, "tasks.retrain.validate"),
        ("tasks/retrain/__init__.py", TEACHERS, "runtime.caching"),
        ("tasks/retrain/students.py", STUDENTS, TEACHERS),
    ],
)
def test_code_digest__follows_imports_and_nothing_else(checkout: Path, file: str, changed: str, unchanged: str) -> None:
    assert changed_by(comment(checkout / file), changed, unchanged) == [True, False]


def test_code_digest__another_torch_is_other_code_for_what_imports_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.version
    write(root, "tutelage/learns.py", "import json\nimport torch.nn as nn\n")
    write(root, "tutelage/reads.py", "import polars\n")

    def upgrade() -> None:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == "torch" else installed(name))

    assert changed_by(upgrade, "tutelage.learns", "tutelage.reads") == [True, False]


def test_code_digest__the_stages_that_train_know_torch(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.metadata.version

    def upgrade() -> None:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == "torch" else installed(name))

    assert changed_by(upgrade, TEACHERS, STUDENTS, "tasks.promotion.decisions") == [True, True, False]


def write(root: Path, name: str, text: str) -> Path:
    """A module of an empty checkout, with the packages that it lies in."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "import runtime.used",
        "from runtime import used",
        "from runtime.used import name",
        "import runtime.used as other",
        "def later():\n    from runtime import used\n    return used",
        "def later():\n    import runtime.used",
        "try:\n    import runtime.used\nexcept ImportError:\n    pass",
        "import runtime.between",
    ],
)
def test_code_digest__follows_every_kind_of_import(root: Path, text: str) -> None:
    write(root, "tasks/stage.py", text)
    write(root, "runtime/between.py", "from runtime import used")
    used, unused = write(root, "runtime/used.py", "name = 1"), write(root, "runtime/unused.py", "name = 1")
    assert changed_by(comment(unused), "tasks.stage") == [False]
    assert changed_by(comment(used), "tasks.stage") == [True]


def test_code_digest__a_package_runs_with_its_modules(root: Path) -> None:
    write(root, "tasks/stage.py", "from runtime.used import name")
    write(root, "runtime/used.py", "name = 1")
    assert changed_by(comment(root / "runtime" / "__init__.py"), "tasks.stage") == [True]
    assert changed_by(comment(root / "tasks" / "__init__.py"), "tasks.stage") == [True]


def test_code_digest__is_that_of_names_and_bytes(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write(root, "tasks/stage.py", "import runtime.used")
    write(root, "runtime/used.py", "import tasks.stage")  # a circle ends
    before = code_digest("tasks.stage")
    moved = shutil.copytree(root, tmp_path_factory.mktemp("moved") / "checkout")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "ROOT", moved)
        code_digest.cache_clear()
        assert code_digest("tasks.stage") == before


def test_imported_files__are_a_modules_own_and_those_behind_it(root: Path) -> None:
    write(root, "tasks/stage.py", "import os\nimport polars\nfrom runtime.used import name")
    write(root, "runtime/used.py", "name = 1")
    write(root, "runtime/unused.py", "")
    names = ("tasks/__init__.py", "tasks/stage.py", "runtime/__init__.py", "runtime/used.py")
    assert imported_files("tasks.stage") == {root / name for name in names}


def test_git_commit__of_an_image_is_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TUTELAGE_COMMIT", "abc123")
    assert git_commit() == "abc123"


def test_git_commit__is_the_checkouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUTELAGE_COMMIT", raising=False)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)

    def git(*words: str) -> str:
        named = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words]
        return subprocess.run(named, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    assert git_commit() == "unknown"
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    assert len(git_commit()) == 40
    assert git_commit() == git("rev-parse", "HEAD")


def test_git_commit__without_git_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUTELAGE_COMMIT", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() == "unknown"
