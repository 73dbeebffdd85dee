"""The docs name everything that a user sets or reads: keys, parameters, metrics, events, commands."""

import re
import typing
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import BaseModel

from schemas.ablation import AblationParameters
from schemas.backtest import BacktestParameters
from schemas.fleet import FleetParameters
from schemas.forecast import ForecastParameters
from schemas.monitor import MonitorParameters
from schemas.promotion import ApprovalParameters, RollbackParameters
from schemas.retrain import RetrainParameters
from schemas.study import StudyParameters
from schemas.tidy import TidyParameters
from tasks.monitor.alert import DEGRADED
from tutelage.data.dataset import DatasetSpec
from tutelage.judge.metrics import Scores

ROOT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
EVERY_PAGE = "\n".join(text for name, text in PAGES.items() if name != "log.md")
PARAMETERS = (
    RetrainParameters,
    BacktestParameters,
    AblationParameters,
    FleetParameters,
    StudyParameters,
    ForecastParameters,
    MonitorParameters,
    RollbackParameters,
    ApprovalParameters,
    TidyParameters,
)


def contracts_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The contracts that a field holds, alone or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from contracts_in(argument)


def keys_of(contract: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of a contract's fields that hold a value."""
    for name, field in contract.model_fields.items():
        contracts = list(contracts_in(field.annotation))
        if not contracts:
            yield prefix + name
        for each in contracts:
            yield from keys_of(each, f"{prefix}{name}.")


def is_named(name: str, text: str) -> bool:
    """Whether a name, or its last part, stands in code type."""
    return re.search(rf"`[^`\n]*(?<!\w){re.escape(name.split('.')[-1])}(?!\w)[^`\n]*`", text) is not None


def test_keys__of_a_dataset_spec_are_documented() -> None:
    keys = [key.removesuffix(".tolerance") for key in keys_of(DatasetSpec)]
    assert [key for key in keys if not is_named(key, PAGES["datasets.md"])] == []


@pytest.mark.parametrize("contract", PARAMETERS)
def test_parameters__of_a_flow_are_documented(contract: type[BaseModel]) -> None:
    names = [name.removeprefix("recipe.") for name in keys_of(contract)]
    assert [name for name in names if not is_named(name, EVERY_PAGE)] == []


def test_scores__events_and_commands_are_documented() -> None:
    scores = [field.name for field in fields(Scores)]
    assert [name for name in [*scores, DEGRADED] if not is_named(name, EVERY_PAGE)] == []
    commands = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    read = EVERY_PAGE + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [name for name in commands if f"make {name}" not in read and name != "help"] == []


def test_is_named__looks_at_whole_names() -> None:
    assert is_named("student.head", "`student.head` says")
    assert is_named("student.head", "the key `head` says")
    assert not is_named("student.head", "the `header` and head")


def test_log__entries_have_numbers_that_stay_and_a_row_each() -> None:
    """Newest first, the oldest is 1: a new entry changes no number, and only a later one supersedes."""
    entries = re.findall(r"^\| (\d+) \| (\d{4}-\d\d-\d\d|before) \|.*\| ([^|]*)\|$", PAGES["log.md"], re.MULTILINE)
    assert [int(number) for number, _, _ in entries] == [*range(len(entries), 0, -1)]
    dates = re.findall(r"^## (\d{4}-\d\d-\d\d|Before) ", PAGES["log.md"], re.MULTILINE)
    assert [date for _, date, _ in entries] == [date.lower() for date in dates]
    for number, _, later in entries:
        assert all(int(number) < int(each) <= len(entries) for each in re.findall(r"\b\d+\b", later))
