"""A registered model as teacher: what it forecasts for the windows of a task."""

import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from prefect import get_run_logger
from torch import Tensor

from schemas.manifests import FeaturesManifest
from tutelage.dataset import DatasetSpec, Role
from tutelage.distillation import Task
from tutelage.errors import RegistryError
from tutelage.export import Student, forecast_windows, load_student
from tutelage.heads import QUANTILE_LEVELS
from tutelage.metrics import Forecasts
from tutelage.teachers import Told
from tutelage.windows import gather_future, gather_past

QUANTILES = [f"q{round(level * 100):02d}" for level in QUANTILE_LEVELS]
AT_ONCE = 256
"""Windows that a model is asked for in one call."""


def load_registered(model: str, features: FeaturesManifest, spec: DatasetSpec) -> Told:
    """The model `name/version` of the registry as a teacher.

    One of ours speaks by its ONNX graph. Any other is asked as ours can be: by MLflow's `predict`, with the hourly
    table that `tasks/serving/forecaster.py` describes, a window a series, for series_id, lead_hours and q01 to q99.

    Raises RegistryError where there is no such version, or it can't teach this task: other columns, another horizon, a
    longer past, or a training that went on into the test part.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model}", dst_path=folder)
        except MlflowException as error:
            raise RegistryError(f"teacher_model {model} can't be loaded from the registry: {error}") from error
        export = Path(path) / "artifacts" / "export"
        if not (export / "student.json").exists():
            get_run_logger().warning(
                "teacher_model %s does not say until when it was trained: see to it that it ends before the test part",
                model,
            )
            return _asked(model, mlflow.pyfunc.load_model(f"models:/{model}"), spec)
        student = load_student(export)
    _require_fit(model, student, features, spec)
    return lambda task, origins: _told(student, task, origins)


def _require_fit(model: str, student: Student, features: FeaturesManifest, spec: DatasetSpec) -> None:
    card = student.card
    ours: dict[str, Any] = {
        "target": spec.target,
        "observed": spec.names(Role.OBSERVED),
        "known_future": spec.names(Role.KNOWN_FUTURE),
        "timezone": spec.calendar.timezone,
        "horizon_hours": features.horizon_hours,
    }
    faults = [f"its {name} is {card[name]}, not {value}" for name, value in ours.items() if card[name] != value]
    if card["lookback_hours"] > features.lookback_hours:
        faults.append(f"it looks back {card['lookback_hours']} h, and the windows have {features.lookback_hours}")
    if student.trained_until > features.test.start_utc:
        faults.append(f"it was trained until {student.trained_until:%Y-%m-%d}, into the test part")
    if faults:
        raise RegistryError(f"teacher_model {model} can't teach {features.task}: {'; '.join(faults)}")


def _told(student: Student, task: Task, origins: Tensor) -> Forecasts:
    observed = gather_past(task.panel.observed, origins, student.card["lookback_hours"])
    known = gather_future(task.panel.known, origins, task.horizon)
    return forecast_windows(student, observed.cpu().numpy(), known.cpu().numpy())


def _asked(model: str, loaded: PyFuncModel, spec: DatasetSpec) -> Told:
    """A model behind MLflow's border, asked for some windows a call."""
    observed, known = spec.names(Role.OBSERVED), spec.names(Role.KNOWN_FUTURE)

    def tell(task: Task, origins: Tensor) -> Forecasts:
        parts = []
        for some in origins.cpu().split(AT_ONCE):
            answer = pd.DataFrame(loaded.predict(_table(task, some, observed, known)))
            lacking = [name for name in ("series_id", "lead_hours", *QUANTILES) if name not in answer]
            if lacking:
                raise RegistryError(f"teacher_model {model} does not answer with {', '.join(lacking[:3])}")
            ordered = answer.assign(series_id=answer["series_id"].astype(int)).sort_values(["series_id", "lead_hours"])
            if len(ordered) != len(some) * task.horizon:
                told = f"{len(ordered)} hours to {len(some)} windows of {task.horizon}"
                raise RegistryError(f"teacher_model {model} answers with {told}")
            parts.append(ordered[QUANTILES].to_numpy(np.float64).reshape(len(some), task.horizon, -1))
        quantiles = np.concatenate(parts)
        return Forecasts(quantiles.mean(axis=-1), quantiles)

    return tell


def _table(task: Task, origins: Tensor, observed: list[str], known: list[str]) -> pd.DataFrame:
    """The windows as an hourly table, each a series; hours ahead are rows where something is known of them."""
    ahead = task.horizon if known else 0
    hours = np.arange(-task.lookback, ahead)
    rows = origins.numpy()[:, None] + hours
    values = task.panel.observed.cpu().numpy()[rows].astype(np.float64)
    values[:, task.lookback :] = np.nan
    planned = task.panel.known.cpu().numpy()[rows][..., 3:].astype(np.float64)
    times = pd.to_datetime(task.panel.hour.cpu().numpy()[rows].ravel() * 3600, unit="s", utc=True)
    table = pd.DataFrame({"series_id": np.repeat([str(i) for i in range(len(origins))], len(hours)), "time_utc": times})
    table[observed] = values.reshape(-1, len(observed))
    if known:
        table[known] = planned.reshape(-1, len(known))
    return table
