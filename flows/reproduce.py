"""Repeat a retrain from its record, in an empty home, and compare the digests of what its stages wrote.

Run it with `make reproduce RUN=…`, the id of an MLflow run. On a CPU with the same code, packages, processor type and
data all digests are the same: readings, features, teachers' and students' weights, and those of the refit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from flows.terminal import sentences
from runtime.paths import copies_folder
from runtime.provenance import ROOT, code_digest, git_commit
from runtime.record import RECORD, Record, read_record
from schemas.training import CUSTOM
from tasks.retrain.run import FLOW
from tutelage.data.dataset import DatasetSpec
from tutelage.data.source import Source, relative_names, source_files
from tutelage.errors import DataError, SpecError, TutelageError
from tutelage.files import file_digest

AGAIN = """
import sys
from flows.retrain import retrain
from schemas.retrain import RetrainParameters
retrain(RetrainParameters.model_validate_json(sys.argv[1]))
"""
SET_BY_US = ("PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH", "PREFECT_API_URL", "MLFLOW_TRACKING_URI")
"""What the environment of a service says, and a home of its own must not know."""


def environment_of(folder: Path) -> dict[str, str]:
    """The environment of a process with a home of its own, whose datasets are in it."""
    environment = {name: value for name, value in os.environ.items() if name not in SET_BY_US}
    return environment | {"TUTELAGE_HOME": str(folder), "TUTELAGE_DATASETS": str(folder / "datasets")}


def require_same_files(files: dict[str, Path], digests: dict[str, str]) -> None:
    """Raise DataError where a source's files, by name, are not those that the run has read."""
    for name, path in files.items():
        if name not in digests:
            raise DataError(f"{name}: the run has not read it, it is new")
        if file_digest(path) != digests[name]:
            raise DataError(f"{name} is not the file that the run has read: its SHA-256 differs")
    gone = sorted(digests.keys() - files.keys())
    if gone:
        raise DataError(f"{gone[0]}: the run has read it, it is gone")


def source_then(spec: DatasetSpec, digests: dict[str, str], folder: Path) -> Source:
    """The source with the files that the run has read; of what flows copy, the copies then, linked into the folder.

    Raises DataError where a file is another one, or gone.
    """
    if not spec.source.is_copied:
        require_same_files(relative_names(source_files(spec.source)), digests)
        return spec.source
    copies = {file_digest(path): path for path in copies_folder(spec.name).rglob("*") if path.is_file()}
    require_same_files({name: copies[digest] for name, digest in digests.items() if digest in copies}, digests)
    for name, digest in digests.items():
        link = folder / spec.name / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(copies[digest])
    what = {"path": f"{folder / spec.name}/**/*", "format": "csv" if spec.source.is_text else "parquet"}
    return spec.source.model_copy(update=what | {"database": None, "query": None})


def repeated(record: Record) -> Record:
    """The record of the same retrain, run anew in an empty home.

    Raises TutelageError where it fails.
    """
    with TemporaryDirectory() as folder:
        specs = Path(folder) / "datasets"
        specs.mkdir()
        for name, plain in record.specs.items():
            spec = DatasetSpec.model_validate(plain)
            source = source_then(spec, record.files[name], Path(folder) / "copies")
            plain = spec.model_copy(update={"source": source}).model_dump(mode="json")
            (specs / f"{name}.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
        # The recipe is recorded whole; the preset that it came from may have changed.
        parameters = record.parameters | {"preset": CUSTOM}
        command = [sys.executable, "-c", AGAIN, json.dumps(parameters)]
        if subprocess.run(command, cwd=ROOT, env=environment_of(Path(folder)), check=False).returncode:
            raise TutelageError("the retrain could not be repeated: see above")
        [path] = (Path(folder) / "mlflow-artifacts").rglob(RECORD)
        return Record.model_validate_json(path.read_text(encoding="utf-8"))


def comparison(before: Record, after: Record) -> list[str]:
    """One line for each stage: its digest then and now, and whether they are the same."""
    lines = [f"{'':<10}{'then':<18}{'now':<18}"]
    for name, digest in before.results.items():
        again = after.results.get(name, "nothing")
        lines.append(f"{name:<10}{digest[:16]:<18}{again[:16]:<18}{'same' if again == digest else 'DIFFERS'}")
    return lines


def main(arguments: list[str]) -> int:
    """Repeat the run that the argument names; 0 where everything is the same."""
    with sentences():
        if len(arguments) != 1 or not arguments[0]:
            raise SpecError("name one run: make reproduce RUN=1f3a…, the id of a retrain's run in MLflow")
        record = read_record(arguments[0])
        if record.code != code_digest(FLOW):
            print(f"The code differs: then commit {record.commit}, now {git_commit()}, or other packages.", flush=True)
        after = repeated(record)
        print("", *comparison(record, after), sep="\n")
        return 0 if after.results == record.results else 1
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
