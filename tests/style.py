"""The style that a machine can check: `python -m tests.style` prints each fault as file:line: fault and exits with 1.

- phrases that have a plain, present-day equivalent, in code, documentation, specs and templates
- variables and parameters whose names say nothing, in code
- functions and files that are too long, in the packages of the product

Other rules (`alone` for only, names that mislead) are left to review. docs/log.md is not checked: its entries are dated
and keep their words.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PRODUCT = ("tutelage", "runtime", "tasks", "flows", "schemas", "serving", "deployments")
CODE = (*PRODUCT, "benchmarks")
MOST_FUNCTION_LINES = 60
MOST_FILE_LINES = 350

PHRASES = (
    r"tell|tells|telling|told",
    r"so many",
    r"beside",
    r"in all else",
    r"(?:go|goes|gone|went|going) on from",
    r"what it (?:has )?said",
    r"of ours",
    r"as of `",
    r"no privilege|no_privilege",
    r"(?-i:Returned|Needed|Taken|Chosen|Written|Kept) (?:is|are)",
)
"""Banned everywhere, as regular expressions. A blank also matches a line break, in text or between comment lines."""
CODE_PHRASES = (r"stretch|stretches", r"judged")
"""Banned only in code: documentation may write of judging."""
EMPTY_NAMES = frozenset({"own", "some", "found", "told", "kept", "one", "now"})

ALLOWED = {
    # A folder in versions that were registered before 0.2, which must stay readable.
    ("runtime/registry.py", "judged"),
}
"""(file, phrase) pairs that are allowed, each with its reason."""


class Fault(NamedTuple):
    """One fault: where it is, and what to change."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    any_phrase = "|".join(phrases).replace(" ", r"(?:[ \t]+|[ \t]*\n[ \t]*(?:#[: ]*)?)")
    return re.compile(rf"(?<!\w)(?:{any_phrase})(?:(?<=`)|(?!\w))", re.IGNORECASE)


EVERYWHERE = _pattern(PHRASES)
IN_CODE = _pattern(PHRASES + CODE_PHRASES)


def phrase_faults(path: str, text: str) -> Iterator[Fault]:
    """The banned phrases of a file's text."""
    for match in (IN_CODE if path.endswith(".py") else EVERYWHERE).finditer(text):
        phrase = re.sub(r"\s+(?:#[: ]*)?", " ", match[0])
        if (path, phrase) not in ALLOWED:
            yield Fault(path, text.count("\n", 0, match.start()) + 1, phrase)


def name_faults(path: str, tree: ast.AST) -> Iterator[Fault]:
    """Variables and parameters whose names say nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in EMPTY_NAMES:
            yield Fault(path, node.lineno, f"variable {node.id}")
        elif isinstance(node, ast.arg) and node.arg in EMPTY_NAMES:
            yield Fault(path, node.lineno, f"parameter {node.arg}")


def size_faults(path: str, text: str, tree: ast.AST) -> Iterator[Fault]:
    """Functions and files that are too long."""
    lines = len(text.splitlines())
    if lines > MOST_FILE_LINES:
        yield Fault(path, 1, f"{lines} lines, more than {MOST_FILE_LINES}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                yield Fault(path, node.lineno, f"{node.name} has {length} lines, more than {MOST_FUNCTION_LINES}")


def checked_files(root: Path) -> list[Path]:
    """The files of a checkout that are checked, sorted."""
    code = [path for folder in CODE for path in (root / folder).rglob("*.py")]
    templates = [path for folder in PRODUCT for path in (root / folder).rglob("templates/*") if path.is_file()]
    specs = (root / "deployments").rglob("*.yaml")
    documents = [path for path in (root / "docs").rglob("*.md") if path != root / "docs" / "log.md"]
    named = [path for name in ("README.md", "CONTRIBUTING.md") if (path := root / name).is_file()]
    return sorted([*code, *templates, *specs, *documents, *named])


def find_faults(root: Path) -> list[Fault]:
    """All faults of a checkout, by file and line."""
    faults: list[Fault] = []
    for file in checked_files(root):
        path, text = file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")
        faults += phrase_faults(path, text)
        if file.suffix == ".py":
            tree = ast.parse(text)
            faults += name_faults(path, tree)
            if path.partition("/")[0] in PRODUCT:
                faults += size_faults(path, text, tree)
    return sorted(faults)


def main() -> int:
    """Print the faults; 1 where there are any."""
    faults = find_faults(ROOT)
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
