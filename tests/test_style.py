"""The style check finds what it must, passes what it may, and the repository passes it."""

from pathlib import Path

import pytest

from tests.style import (
    ALLOWED,
    EMPTY_NAMES,
    MOST_FILE_LINES,
    MOST_FUNCTION_LINES,
    ROOT,
    Fault,
    checked_files,
    find_faults,
    main,
)

HEAD = '"""A module."""\n\n'


def plant(root: Path, path: str, text: str) -> list[Fault]:
    """The faults of a checkout that has one file."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return find_faults(root)


def test_repository__passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(), capsys.readouterr().out) == (0, "")


def test_main__prints_file_line_and_phrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, "runtime/clock.py", f"{HEAD}# It tells the time.\n")
    monkeypatch.setattr("tests.style.ROOT", tmp_path)
    assert (main(), capsys.readouterr().out) == (1, "runtime/clock.py:3: tells\n")


@pytest.mark.parametrize(
    ("text", "line", "phrase"),
    [
        ("# At most so many epochs.", 3, "so many"),
        ("# The scores\n# beside it.", 4, "beside"),
        ("# A state found there is gone\n    # on from.", 3, "gone on from"),
        ("# It stores what it said.", 3, "what it said"),
        ("#: A module of\n#: ours.", 3, "of ours"),
        ('"""The tasks of\n    ours."""', 3, "of ours"),
        ("# α, as of `heads.head_labels`.", 3, "as of `"),
        ("# Students with no privilege.", 3, "no privilege"),
        ("\n\n# Returned are the scores.", 5, "Returned are"),
        ("# Whatever. Told twice.", 3, "Told"),
        ("# One stretch of days.", 3, "stretch"),
        ("# The forecasts are judged.", 3, "judged"),
        ('print("a person is told")', 3, "told"),
    ],
)
def test_phrases__are_found_in_code(text: str, line: int, phrase: str, tmp_path: Path) -> None:
    path = "tasks/study/folds.py"
    assert plant(tmp_path, path, f"{HEAD}{text}\n") == [Fault(path, line, phrase)]


@pytest.mark.parametrize(
    "path",
    [
        "docs/method.md",
        "docs/decisions/0001-pins.md",
        "README.md",
        "CONTRIBUTING.md",
        "tasks/retrain/templates/report.html",
        "deployments/datasets/meter.yaml",
        "benchmarks/ett.py",
    ],
)
def test_phrases__are_found_in_every_kind_of_file(path: str, tmp_path: Path) -> None:
    assert plant(tmp_path, path, "#\n# The twin stands beside\n") == [Fault(path, 2, "beside")]


@pytest.mark.parametrize("path", ["docs/log.md", "tests/conftest.py", "CHANGELOG.md", "docs/images/told.txt"])
def test_phrases__are_not_looked_for_elsewhere(path: str, tmp_path: Path) -> None:
    assert plant(tmp_path, path, "# told\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "# Besides, an intellect foretold it; stretched: teller.",
        "# See the history `as_of` that time, as of today.",
        "# There are so few, and many so on.",
        "# Whether it is needed is open. It is taken; chosen are not needed are.",
        "def test_is_told_in_words() -> None: ...",
    ],
)
def test_phrases__of_other_words_pass(text: str, tmp_path: Path) -> None:
    assert plant(tmp_path, "runtime/clock.py", f"{HEAD}{text}\n") == []


def test_phrases__only_of_code_pass_in_documentation(tmp_path: Path) -> None:
    assert plant(tmp_path, "docs/method.md", "One judged a stretch of days.\n") == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("{} = 1", "variable"),
        ("{}: int = 1", "variable"),
        ("first, *{} = 1, 2", "variable"),
        ("for {} in range(3): ...", "variable"),
        ("values = [{0} for {0} in range(3)]", "variable"),
        ("if ({} := 1): ...", "variable"),
        ("with open('x') as {}: ...", "variable"),
        ("def double({}): ...", "parameter"),
        ("def double(*, {}=1): ...", "parameter"),
        ("double = lambda {}: 2", "parameter"),
    ],
)
@pytest.mark.parametrize("name", sorted(EMPTY_NAMES - {"told"}))
def test_names__that_say_nothing_are_found(code: str, what: str, name: str, tmp_path: Path) -> None:
    faults = plant(tmp_path, "flows/demo.py", f"{HEAD}{code.format(name)}\n")
    assert faults == [Fault("flows/demo.py", 3, f"{what} {name}")]


@pytest.mark.parametrize(
    "code", ["x = dt.datetime.now()", "box.own = 1", "call(found=1)", "known = owned = someone = 1"]
)
def test_names__of_others_pass(code: str, tmp_path: Path) -> None:
    assert plant(tmp_path, "flows/demo.py", f"{HEAD}{code}\n") == []


def test_sizes__longer_functions_and_files_are_found(tmp_path: Path) -> None:
    body = "    print()\n"
    function = f"{HEAD}def show() -> None:\n{body * (MOST_FUNCTION_LINES - 1)}"
    assert plant(tmp_path, "schemas/quality.py", function) == []
    longer = f"show has {MOST_FUNCTION_LINES + 1} lines, more than {MOST_FUNCTION_LINES}"
    assert plant(tmp_path, "schemas/quality.py", function + body) == [Fault("schemas/quality.py", 3, longer)]
    assert plant(tmp_path, "schemas/quality.py", "#\n" * MOST_FILE_LINES) == []
    faults = plant(tmp_path, "schemas/quality.py", "#\n" * (MOST_FILE_LINES + 1))
    assert faults == [Fault("schemas/quality.py", 1, f"{MOST_FILE_LINES + 1} lines, more than {MOST_FILE_LINES}")]


def test_allowed__exceptions_are_still_needed() -> None:
    for path, phrase in ALLOWED:
        assert phrase in (ROOT / path).read_text(encoding="utf-8")


def test_checked_files__cover_every_package_and_all_documentation() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in checked_files(ROOT)}
    expected = {"tutelage/errors.py", "serving/forecaster.py", "benchmarks/common.py", "deployments/prefect.yaml"}
    expected |= {"docs/method.md", "README.md", "CONTRIBUTING.md", "tasks/retrain/templates/verdict.md"}
    assert expected <= names
