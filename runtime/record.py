"""What it takes to repeat a run: its parameters, its specs, and the digests of what went in and came out."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.registry import client
from tutelage.errors import RegistryError
from tutelage.files import read_json

RECORD = "record.json"


class Record(BaseModel):
    """A run's parameters, the dataset specs by name, the digests of its code and its files, and of its results.

    results: by stage, in their order; files: the digest of each source file by its dataset and its name
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: dict[str, Any]
    specs: dict[str, dict[str, Any]]
    commit: str
    code: str
    files: dict[str, dict[str, str]]
    results: dict[str, str]


def log_record(run_id: str, record: Record) -> None:
    """Log a record to its run."""
    client().log_dict(run_id, record.model_dump(mode="json"), RECORD)


def read_record(run_id: str) -> Record:
    """Read the record of a run.

    Raises RegistryError where there is no such run, or it has no record.
    """
    try:
        with TemporaryDirectory() as folder:
            return Record.model_validate(read_json(Path(client().download_artifacts(run_id, RECORD, folder))))
    except (MlflowException, OSError, ValidationError) as error:
        raise RegistryError(
            f"run {run_id} has no {RECORD}: it did not end, it is none of a retrain, or an earlier release made it"
        ) from error
