"""The code of a run: the checkout's commit, and a digest of a module with everything that it imports."""

import ast
import importlib.metadata
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from tutelage.files import file_digest, value_digest

ROOT = Path(__file__).parent.parent
OURS = ("tutelage", "schemas", "runtime", "tasks", "flows", "serving", "deployments", "benchmarks")


def git_commit() -> str:
    """The commit of the code: TUTELAGE_COMMIT (set in a container image), else the checkout's, else `unknown`."""
    if os.environ.get("TUTELAGE_COMMIT"):
        return os.environ["TUTELAGE_COMMIT"]
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # a container may have no git
        return "unknown"
    return done.stdout.strip() or "unknown"


@cache
def code_digest(module: str) -> str:
    """Digest of a module's source, of this project's modules that it imports, and of the packages that these import.

    Imports are followed through all modules of this project, including imports inside functions; for other packages
    the installed version counts. Code that a module doesn't import doesn't change its digest.
    """
    files, packages = _followed(module)
    return value_digest(
        {
            "python": sys.version_info[:2],
            "files": {str(path.relative_to(ROOT)): file_digest(path) for path in sorted(files)},
            "packages": _versions(packages),
        }
    )


def imported_files(module: str) -> frozenset[Path]:
    """The files of this project that a module imports, directly or not, including its own."""
    return frozenset(_followed(module)[0])


def _followed(module: str) -> tuple[set[Path], set[str]]:
    files: set[Path] = set()
    packages: set[str] = set()
    waiting = [module]
    while waiting:
        for name in _with_parents(waiting.pop()):
            path = _file_of(name)
            if path is None or path in files:
                continue
            files.add(path)
            for imported in _imports_of(path):
                if imported.partition(".")[0] in OURS:
                    waiting.append(imported)
                else:
                    packages.add(imported.partition(".")[0])
    return files, packages - sys.stdlib_module_names


def _with_parents(name: str) -> list[str]:
    """`a`, `a.b` and `a.b.c` for `a.b.c`: importing it runs them all."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _file_of(name: str) -> Path | None:
    """The file of one of this project's modules; None where the name is not a module."""
    path = ROOT.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imports_of(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import name`: the name may be a module.
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@cache
def _distributions() -> dict[str, list[str]]:
    return {package: sorted(set(names)) for package, names in importlib.metadata.packages_distributions().items()}


def _versions(packages: set[str]) -> dict[str, str]:
    names = {name for package in packages for name in _distributions().get(package, [])}
    return {name: importlib.metadata.version(name) for name in sorted(names)}
