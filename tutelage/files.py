"""Files that are either complete or absent: content digests, and writes to a temporary name that is then renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 of the names and the bytes of all files in a folder, as hex."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return value_digest({path.relative_to(folder).as_posix(): file_digest(path) for path in files})


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON-like value, independent of the order of its keys, as hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds, delete it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; rename it to `path` if the block succeeds, delete it otherwise.

    An existing `path` is replaced: its content is determined by its name or by its stage's inputs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield part
        part.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            path.replace(old)
            part.replace(path)
            shutil.rmtree(old)
        else:
            part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, completely or not at all."""
    with written_whole(path) as part:
        part.write_text(json.dumps(value, indent=2, default=str, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a value from JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_table(table: pl.DataFrame, folder: Path) -> tuple[Path, str]:
    """Write a table as parquet, named by the digest of its bytes; return the path and the digest."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".table.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        table.write_parquet(part, compression="zstd", compression_level=1)
        digest = file_digest(part)
        path = folder / f"{digest}.parquet"
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path, digest
