"""What tests of stages need in place of a Prefect server, and small values of the contracts."""

import datetime as dt
import itertools
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import mlflow
import pandas as pd
from mlflow.models import Model
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

import runtime.runs  # noqa: F401 - patched below
from runtime.packaging import write_model
from runtime.paths import home
from runtime.registry import client
from schemas.retrain import ChampionComparison, Evaluation, FeaturesManifest, LeakCheck, SpanManifest, TrainedManifest
from tests.tutelage.data.builders import HOUR, START, export_untrained, meter
from tutelage.data.dataset import DatasetSpec
from tutelage.files import read_json, write_json
from tutelage.forecasts import Contender
from tutelage.judge.comparison import Floor, Gain
from tutelage.judge.metrics import Scores
from tutelage.model.inference import CARD

FLOW_RUN = "00000000-0000-0000-0000-00000000f10e"
"""The id of the flow run that the stages believe to be in."""
DAY = dt.timedelta(days=1)
NUMBERS = itertools.count()
PUBLISHING = (
    "create_table_artifact",
    "create_markdown_artifact",
    "create_progress_artifact",
    "update_progress_artifact",
    "emit_event",
)


@dataclass
class Published:
    """What stages have published: the name of Prefect's function, with its positional and named arguments."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def of(self, name: str, key: str | None = None) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The calls of one function, or only those with an artifact's key."""
        named = [(args, values) for called, args, values in self.calls if called == name]
        return [(args, values) for args, values in named if key is None or values.get("key") == key]


def _recorder(name: str, published: Published) -> Callable[..., uuid.UUID]:
    def record(*args: Any, **values: Any) -> uuid.UUID:
        published.calls.append((name, args, values))
        return uuid.UUID(int=len(published.calls))

    return record


@contextmanager
def serverless() -> Iterator[Published]:
    """Stages run without a Prefect server: what they publish is recorded, and whatever else asks for one fails."""
    published = Published()
    ours = [m for name, m in sorted(sys.modules.items()) if name.partition(".")[0] in ("runtime", "tasks")]
    with ExitStack() as stack:
        stack.enter_context(
            temporary_settings({PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}, restore_defaults={PREFECT_API_URL})
        )
        stack.enter_context(disable_run_logger())
        in_run = SimpleNamespace(task_run=SimpleNamespace(flow_run_id=uuid.UUID(FLOW_RUN)))
        stack.enter_context(mock.patch("runtime.runs.get_run_context", return_value=in_run))
        for module in ours:
            for name in PUBLISHING:
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, _recorder(name, published)))
        yield published


class Log:
    """A logger that keeps its lines, in place of Prefect's run logger."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *values: object) -> None:
        self.lines.append(text % values)

    warning = info


def gain_of(
    estimate: float, low: float | None = None, high: float | None = None, *, p: float = 0.01, windows: int = 400
) -> Gain:
    """A gain whose interval reaches two per cent to both sides where none is given."""
    return Gain(
        estimate, estimate - 0.02 if low is None else low, estimate + 0.02 if high is None else high, p, windows
    )


def scores_of(crps: float) -> Scores:
    return Scores(crps=crps, mae=2 * crps, rmse=3 * crps, coverage_80=0.8)


CRPS = {Contender.STUDENT: 0.9, Contender.UNPRIVILEGED: 0.95, Contender.TWIN: 1.0, Contender.TEACHER: 0.7}


def evaluation_of(**changes: Any) -> Evaluation:
    """An evaluation whose students gain 10 % over their twins, without a champion."""
    values = {
        "scores": {name: scores_of(crps) for name, crps in (CRPS | {Contender.CHOSEN: 0.91}).items()},
        "validation_crps": {Contender.STUDENT: 0.8, Contender.TWIN: 0.85},
        "floor": Floor(Contender.RIDGE, gain_of(0.05)),
        "gain_over_twin": gain_of(0.1),
        "gain_over_unprivileged": gain_of(1 - 0.9 / 0.95),
        "gain_by_replicate": [0.08, 0.12],
        "gate_by_hour": None,
        "base_weights": None,
        "champion": None,
        "chosen": Contender.STUDENT,
        "leak_check": LeakCheck(passed=True, checked=24),
    }
    return Evaluation(**(values | changes))


def met(
    gain: Gain | None,
    *,
    version: str = "7",
    compared_as: str | None = "registered",
    since_days: float = 7,
    differences: tuple[str, ...] = (),
) -> ChampionComparison:
    """A comparison with champion 7, of windows that are an hour apart."""
    if gain is None:
        return ChampionComparison(version=version, gain=None, compared_as=None, differences=differences)
    weeks = gain.windows / 168
    return ChampionComparison(version=version, gain=gain, compared_as=compared_as, since_days=since_days, weeks=weeks)


def span_of(first: int, end: int, *, windows: int = 40) -> SpanManifest:
    """From one day after START up to another."""
    return SpanManifest(start_utc=START + first * DAY, end_utc=START + end * DAY, windows=windows)


def features_of(folder: Path, spec: DatasetSpec | None = None, **changes: Any) -> FeaturesManifest:
    """The features manifest of a meter: ten days of training, two of validation, four of test."""
    spec = spec or meter()
    values = {
        "folder": folder,
        "digest": "f" * 8,
        "task": f"{spec.name}-2h",
        "dataset": spec.name,
        "target": spec.target,
        "unit": "kW",
        "horizon_hours": 2,
        "lookback_hours": 6,
        "train": span_of(0, 10),
        "validation": span_of(10, 12),
        "test": span_of(12, 16),
        "steps": 16 * 24,
        "null_steps": 3,
        "unused_days": 0,
    }
    return FeaturesManifest(**(values | changes))


def trained_in(folder: Path, **changes: Any) -> TrainedManifest:
    values = {"digest": "t" * 8, "best_epoch": {"teacher": 2}, "best_validation_loss": {"teacher": 1.5}, "epochs": 4}
    return TrainedManifest(folder=folder, **(values | changes))


@cache
def _exported(lookback: int, horizon: int) -> Path:
    folder = home() / "untrained" / f"{lookback}-{horizon}" / "export"
    export_untrained(meter(), folder, lookback=lookback, horizon=horizon)
    return folder


def exported_student(folder: Path, trained_until: dt.datetime = START, *, lookback: int = 6, horizon: int = 2) -> Path:
    """Write the export of an untrained student of the meter into a new folder; torch's exporter runs only once."""
    shutil.copytree(_exported(lookback, horizon), folder)
    card = read_json(folder / CARD)
    write_json(folder / CARD, card | {"trained_until_utc": trained_until.isoformat()})
    return folder


def register_folder(name: str, folder: Path) -> str:
    """Register a folder as the next version of a model; return the version."""
    try:
        client().create_registered_model(name)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(client().create_model_version(name, folder.as_uri()).version)


def new_model(folder: Path, *, versions: int) -> str:
    """A model of its own that has a folder as each of its versions; return its name."""
    name = f"model{next(NUMBERS)}-1h"
    for _ in range(versions):
        register_folder(name, folder)
    return name


def put(name: str, at: float, *, size: int = 10) -> Path:
    """A file of so many bytes in the home; it and its folders there are of a time, in seconds since 1970."""
    path = home() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    for each in (path, *path.parents):
        if each.is_relative_to(home()):
            os.utime(each, (at, at))
    return path


def window_of(*, hours: int = 6, issue: dt.datetime = START) -> pd.DataFrame:
    """The hours before an issue time as a registered model takes them, times as text."""
    times = [f"{issue - (hours - at) * HOUR:%Y-%m-%dT%H:%M:%S}" for at in range(hours)]
    power = [float(at) for at in range(hours)]
    return pd.DataFrame({"series_id": "meter", "time_utc": times, "power_kw": power, "indoor_c": 20.0})


@cache
def register_old(name: str = "old-2h") -> tuple[str, str]:
    """Register a refit student as the code before 0.2 did; return the model's name and the version.

    The student that was evaluated before the refit lies in `judged/` there, next to the model that MLflow wrote.
    """
    experiment_id = client().create_experiment(f"{name}-old", (home() / "mlflow-artifacts" / f"{name}-old").as_uri())
    run_id = client().create_run(experiment_id).info.run_id
    model = client().create_logged_model(experiment_id, name=f"{name}-student", source_run_id=run_id)
    with tempfile.TemporaryDirectory() as folder:
        path, export = Path(folder) / "model", exported_student(Path(folder) / "export", START + 16 * DAY)
        write_model(path, export, window_of(), mlflow_model=Model(model_id=model.model_id, run_id=run_id))
        exported_student(path / "judged", START + 12 * DAY)
        (path / "model_card.md").write_text("an old card", encoding="utf-8")
        client().log_model_artifacts(model.model_id, str(path))
    client().finalize_logged_model(model.model_id, "READY")
    client().create_registered_model(name)
    source = f"models:/{model.model_id}"
    version = client().create_model_version(name, source, run_id, description="an old card", model_id=model.model_id)
    return name, str(version.version)
