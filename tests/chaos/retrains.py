"""Retrains in processes of their own, which are followed by what they say, and what must be true of their homes."""

import contextlib
import datetime as dt
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import onnx
import polars as pl
import psutil
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from safetensors import safe_open

from flows.reproduce import AGAIN, environment_of
from runtime.provenance import ROOT
from runtime.record import RECORD, Record
from schemas.retrain import RetrainParameters
from tests.household import write_slice
from tests.tutelage.builders import small_recipe

NAME = "chaos-1h"
STAGES = (
    "fetch",
    "run",
    "ingest",
    "validate",
    "quality",
    "features",
    "teacher",
    "unprivileged",
    "students",
    "evaluate",
    "refit",
    "record",
    "register",
    "report",
)
"""Of a retrain, in their order, as its log names them."""
FORECAST = """
from flows.forecast import forecast
from schemas.forecast import ForecastParameters
forecast(ForecastParameters(dataset="chaos", horizon_hours=1))
"""
"""A program in place of a retrain's."""
KEY_LENGTH = 64
CACHED = ("ingest", "validate", "features", "teacher", "unprivileged", "students")
FINISHED = re.compile(r"Task run '(\w+) chaos(?:-1h)?' - Finished in state (\w+)")
BEGUN = re.compile(r"^(\S+) .*Beginning flow run", re.MULTILINE)
ENDED = re.compile(r"^(\S+) .*Task run .* - Finished in state", re.MULTILINE)


def new_home(folder: Path) -> Path:
    """A home with a dataset of 40 real days."""
    write_slice(folder / "datasets", name="chaos", days=40)
    return folder


def parameters_of(seed: int = 0, **changes: Any) -> RetrainParameters:
    """A retrain that takes some twenty seconds after its start."""
    values = {"horizon_hours": 1, "lookback_hours": 24, "history_days": 24, "test_days": 14, "device": "cpu"}
    values |= {"dataset": "chaos", "seed": seed, "recipe": small_recipe(bins=12, base="none")}
    return RetrainParameters.model_validate(values | changes)


def quick_parameters(seed: int, **changes: Any) -> RetrainParameters:
    """A retrain with no more stages than it needs; another seed trains anew, with data that are ready."""
    return parameters_of(seed, refit=False, unprivileged=False, **changes)


class Retrain:
    """A retrain in a process group of its own, which says what it does into a file."""

    def __init__(self, home: Path, parameters: RetrainParameters, program: str = AGAIN, **environment: str) -> None:
        with tempfile.NamedTemporaryFile(dir=home.parent, suffix=".log", delete=False) as log:
            self._log = Path(log.name)
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, parameters.model_dump_json()],
                cwd=ROOT,
                env=environment_of(home) | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """All that it has said."""
        return self._log.read_text(encoding="utf-8")

    @property
    def finished(self) -> dict[str, str]:
        """The states of the stages that it has finished, in their order."""
        return dict(FINISHED.findall(self.said))

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds from the end of the stage before to that of each stage."""
        [begun] = BEGUN.findall(self.said)
        ends = [dt.datetime.strptime(each, "%H:%M:%S.%f") for each in (begun, *ENDED.findall(self.said))]
        spans = pairwise(ends)
        return {stage: (end - start).total_seconds() for stage, (start, end) in zip(self.finished, spans, strict=True)}

    def wait_for(self, text: str, seconds: float = 240) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert self.process.poll() is None, f"it ended before it said {text!r}:\n{self.said}"
            assert time.monotonic() < deadline, f"no {text!r}:\n{self.said}"
            time.sleep(0.002)

    def begins(self, stage: str) -> None:
        """Wait until a stage begins, which it does when the one before it has finished."""
        place = STAGES.index(stage)
        before = f"Task run '{STAGES[place - 1]} chaos{'-1h' * is_of_task(STAGES[place - 1])}' - Finished"
        self.wait_for(before if place else "Beginning flow run")

    def send(self, sign: signal.Signals = signal.SIGKILL, seconds: float = 60) -> float:
        """Send a signal to its process alone and wait for its end; return the seconds until then."""
        sent = time.monotonic()
        self.process.send_signal(sign)
        self.process.wait(seconds)
        return time.monotonic() - sent

    def succeed(self, seconds: float = 300) -> "Retrain":
        """Wait for its end, which must be a good one."""
        assert self.process.wait(seconds) == 0, self.said
        return self


def is_of_task(stage: str) -> bool:
    """Whether a stage is of the horizon, and not of the dataset alone."""
    return stage not in ("fetch", "ingest", "validate", "quality")


def client_of(home: Path) -> mlflow.MlflowClient:
    """A client of the home's own MLflow database."""
    return mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def runs_of(home: Path) -> list[Run]:
    """All runs of the home's only experiment."""
    client = client_of(home)
    return list(client.search_runs([client.get_experiment_by_name(NAME).experiment_id]))


def make_champion(home: Path, version: int) -> None:
    """Make a version the champion, whatever its figures: those of a small recipe beat nothing."""
    client_of(home).set_registered_model_alias(NAME, "champion", str(version))


def versions_of(home: Path) -> list[ModelVersion]:
    """All registered versions."""
    return list(client_of(home).search_model_versions(f"name = '{NAME}'"))


def record_in(home: Path) -> Record:
    """The record of the home's only retrain."""
    [path] = (home / "mlflow-artifacts").rglob(RECORD)
    return Record.model_validate_json(path.read_text(encoding="utf-8"))


def require_whole_files(home: Path) -> int:
    """Read every file that stages have made visible to its end; return how many there are."""
    paths = [path for folder in ("data", "trainings", "runs", "reports", "results") for path in _files(home / folder)]
    for path in paths:
        match path.suffix:
            case ".parquet":
                pl.read_parquet(path)
            case ".onnx":
                onnx.checker.check_model(onnx.load(path))
            case ".safetensors":
                with safe_open(path, "pt") as file:
                    assert [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 - it is no dict
            case ".html":
                assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), path
            case ".json":
                json.loads(path.read_text(encoding="utf-8"))
            case "" if len(path.name) == KEY_LENGTH:  # what Prefect keeps of a stage; of an error it is no JSON
                json.loads(path.read_text(encoding="utf-8"))
    return len(paths)


def _files(folder: Path) -> list[Path]:
    """The files of a folder but those that are still, or were, being written: their names are hidden."""
    visible = [path for path in folder.rglob("*") if not any(part[0] == "." for part in path.relative_to(folder).parts)]
    return [path for path in visible if path.is_file()]


def require_one_end(home: Path, *, epochs: int = 4) -> None:
    """One run with its children, finished, each epoch once in it; one version; whole files."""
    runs = runs_of(home)
    stages = sorted(run.data.tags["tutelage.stage"] for run in runs)
    assert stages == ["retrain", "student", "teacher", "twin", "unprivileged"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    [teacher] = [run for run in runs if run.data.tags["tutelage.stage"] == "teacher"]
    steps = [metric.step for metric in client_of(home).get_metric_history(teacher.info.run_id, "validation")]
    assert steps == list(range(1, epochs + 1)), "each epoch stands in MLflow once"
    assert len(versions_of(home)) == 1
    assert require_whole_files(home) > 10


def servers_of(folder: Path) -> list[psutil.Process]:
    """The temporary Prefect servers that are alive, of a home or of all homes in a folder."""
    alive = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment = process.environ()
            is_server = environment.get("PREFECT__SERVER_EPHEMERAL") == "1"
            if is_server and Path(environment.get("TUTELAGE_HOME", "/")).is_relative_to(folder):
                alive.append(process)
    return alive


@contextlib.contextmanager
def one_more_version(home: Path) -> Iterator[None]:
    """Whatever happens in the block, one version comes of it, each run has ended well, and no file is half there."""
    before = len(versions_of(home))
    yield
    assert len(versions_of(home)) == before + 1
    assert {run.info.status for run in runs_of(home)} == {"FINISHED"}
    require_whole_files(home)
