"""Cache keys of stages: a stage does not run again for inputs with the same content and the same code."""

import json
import shutil
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.context import TaskRunContext
from prefect.settings import get_current_settings
from pydantic import BaseModel

from runtime.paths import home
from runtime.provenance import code_digest
from runtime.retention import mark_used
from schemas.manifests import Manifest
from tutelage.data.source import called
from tutelage.files import file_digest, value_digest


def content_of(value: Any) -> Any:
    """An input as plain values; a file counts by its bytes and its name, which may name a series, not by its place."""
    if isinstance(value, Manifest):
        if not value.in_cache_key:
            return None
        plain = value.model_dump(mode="json")
        return {name: plain[name] for name in plain if not isinstance(getattr(value, name), Path)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return [called(value), file_digest(value)]
    if isinstance(value, list | tuple):
        return [content_of(item) for item in value]
    return value


def stage_key(module: str, inputs: dict[str, Any]) -> str:
    """The key of a stage's result: a digest of its module's code (`code_digest`) and of the content of its inputs."""
    content = {name: content_of(value) for name, value in sorted(inputs.items())}
    return value_digest({"code": code_digest(module), "inputs": content})


def content_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Prefect's cache key of a stage, from its name and its `stage_key`.

    It also removes a cached result whose files no longer exist, so that the stage runs again, and marks the files of
    one that will be taken as used.
    """
    key = value_digest({"stage": context.task.name, "key": stage_key(context.task.fn.__module__, parameters)})
    _forget_if_lost(key)
    return key


def stage_folder(kind: str, module: str, **inputs: Any) -> Path:
    """The folder of a training stage's result: the same for the same inputs and code, in any run."""
    return home() / "trainings" / kind / stage_key(module, inputs)


def checkpoint_in(folder: Path, name: str) -> Path:
    """The checkpoint file of a training, used until the stage's folder is written."""
    return home() / "checkpoints" / folder.name / f"{name}.safetensors"


def clear_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a stage whose folder is written."""
    shutil.rmtree(checkpoint_in(folder, "any").parent, ignore_errors=True)


def _forget_if_lost(key: str) -> None:
    storage = get_current_settings().results.local_storage_path
    record = Path(storage) / key
    if not record.is_file():
        return
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))["result"]
        content = json.loads(stored) if isinstance(stored, str) else stored
        values = content.get("data", content)
        lost = [text for text in _strings(values) if text.startswith("/") and not Path(text).exists()]
    except (KeyError, ValueError, AttributeError):
        return
    if lost:
        get_run_logger().warning("%s of a cached result is gone: the stage runs again", Path(lost[0]).name)
        record.unlink()
        return
    for path in [record, *map(Path, _strings(values))]:
        if path.is_relative_to(home()):
            mark_used(path)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []
