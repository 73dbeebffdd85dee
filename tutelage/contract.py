"""Contracts: immutable models that reject unknown keys, and how to read one from YAML."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tutelage.errors import SpecError

MOST_BYTES = 256 * 1024
MOST_LEVELS = 20
OPEN = "?"
"""A value that a person has to fill in."""


class Contract(BaseModel):
    """An immutable model that rejects unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyContract = TypeVar("AnyContract", bound=Contract)


def faults_sentence(error: ValidationError, name: str) -> str:
    """Every fault of a contract as `key: rule`, in one sentence that starts with the contract's name."""
    faults = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        rule = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            rule = "unknown key"
        faults.append(f"{key}: {rule}" if key else rule)
    return f"{name}: " + "; ".join(faults)


def _read_yaml(path: Path, name: str) -> Any:
    """The content of a YAML file that is small, and no larger in memory.

    Raises SpecError with a sentence otherwise.
    """
    if path.stat().st_size > MOST_BYTES:
        raise SpecError(f"{name} has {path.stat().st_size} bytes, more than the {MOST_BYTES} that such a file may have")
    try:
        text, depth = path.read_text(encoding="utf-8"), 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            # Names of lists in lists of names: a few lines can stand for billions of values.
            if isinstance(event, yaml.CollectionStartEvent) and event.anchor is not None:
                raise SpecError(f"{name}: &{event.anchor} names a list or a mapping; only single values can have names")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_LEVELS:
                raise SpecError(f"{name} is nested more than {MOST_LEVELS} levels deep")
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{name} is not valid YAML: {error}") from error


def _open_keys(content: Any) -> Iterator[str]:
    """The dotted keys of the values that are still open."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        # In a list it may be a text of the file, such as one of source.null_values.
        if value == OPEN and isinstance(content, dict):
            yield str(key)
        yield from (f"{key}.{inner}" for inner in _open_keys(value))


def load_contract(path: Path, kind: type[AnyContract], *, called: str, many: str) -> AnyContract:
    """Read a contract from YAML.

    called, many: what error messages call one contract of this kind, and several

    Raises SpecError with a sentence that names the file and the key.
    """
    name = f"{called} {path.name}"
    try:
        content = _read_yaml(path, name)
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise SpecError(f"there is no {name}; known {many}: {known}") from None
    if not isinstance(content, dict):
        raise SpecError(f"{name}: expected keys and values, found {type(content).__name__}")
    still_open = ", ".join(_open_keys(content))
    if still_open:
        raise SpecError(f"{name}: still to be filled in, in place of {OPEN!r}: {still_open}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise SpecError(faults_sentence(error, name)) from error
