"""The files of a source: the first stage of every flow that reads data."""

from pathlib import Path

from runtime.paths import copies_folder
from runtime.retention import mark_used
from runtime.stage import stage
from tutelage.data.dataset import DatasetSpec
from tutelage.data.source import source_files


@stage("fetch", run_name="fetch {spec.name}", retry_seconds=10)
def fetch(spec: DatasetSpec) -> list[Path]:
    """Find the source's files; copy what lies in an object store, a database or a Delta table and has changed."""
    copies = copies_folder(spec.name)
    files = source_files(spec.source, copies)
    for path in files:
        if path.is_relative_to(copies):
            mark_used(path)
    return files
