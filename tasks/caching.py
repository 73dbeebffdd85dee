"""When a stage need not run again: the same content, the same parameters, the same code."""

import inspect
import json
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.settings import get_current_settings
from prefect.tasks import Task
from pydantic import BaseModel

import schemas
import tutelage
from schemas.manifests import Manifest
from tutelage.errors import TutelageError
from tutelage.files import file_digest, source_digest, value_digest


def _content(value: Any) -> Any:
    """A parameter as plain values in which a file stands by its bytes: its place and name mean nothing."""
    if isinstance(value, Manifest):
        return {k: v for k, v in value.model_dump(mode="json").items() if not isinstance(getattr(value, k), Path)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return file_digest(value)
    if isinstance(value, list | tuple):
        return [_content(item) for item in value]
    return value


def code_digest() -> str:
    """Digest of the source of the contracts and the core, which all stages build on."""
    return value_digest([source_digest(Path(str(package.__file__)).parent) for package in (schemas, tutelage)])


def content_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Prefect's cache key: digest of the parameters' content and of the source of stage, contracts and core.

    A cached result whose files are gone is forgotten here, so that the stage runs again.
    """
    key = value_digest(
        {
            "task": context.task.name,
            "source": inspect.getsource(inspect.getmodule(context.task.fn)),  # type: ignore[arg-type]
            "code": code_digest(),
            "parameters": {name: _content(value) for name, value in sorted(parameters.items())},
        }
    )
    _forget_if_lost(key)
    return key


def _forget_if_lost(key: str) -> None:
    storage = get_current_settings().results.local_storage_path
    record = Path(storage) / key
    if not record.is_file():
        return
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))["result"]
        content = json.loads(stored) if isinstance(stored, str) else stored
        values = content.get("data", content)
        lost = [v for v in _strings(values) if v.startswith("/") and not Path(v).exists()]
    except (KeyError, ValueError, AttributeError):
        return
    if lost:
        get_run_logger().warning("a cached result lost %s: the stage runs again", Path(lost[0]).name)
        record.unlink()


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again can help: not where the input or the configuration is at fault."""
    return not isinstance(state.result(raise_on_failure=False), TutelageError)
