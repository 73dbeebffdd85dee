"""A registered model as a teacher: its forecasts of a dataset's windows."""

from functools import partial

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PyFuncModel
from prefect import get_run_logger
from torch import Tensor

from runtime.registry import download_version, evaluated_in, exported_in
from schemas.retrain import FeaturesManifest
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.grid import SECOND
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import ForecastFunction, forecast_exported
from tutelage.errors import RegistryError
from tutelage.files import folder_digest
from tutelage.forecasts import QUANTILE_NAMES, Forecasts
from tutelage.model.inference import Student, differences, load_student

CHUNK_WINDOWS = 256
"""Windows per call of a model."""


def load_registered(
    model: str, features: FeaturesManifest, spec: DatasetSpec, *, digest: str | None = None
) -> ForecastFunction:
    """The registered model `name/version` as a teacher.

    A version that this project registered forecasts with its ONNX graph; where its refit has seen the test part, with
    that of the student that was evaluated before it. Any other model is called through MLflow's
    `predict` with the table that `serving/forecaster.py` describes, one series per window, and must return
    series_id, lead_hours and q01 to q99. To load it is to run whatever its pickle or its code says.

    digest: of the files of another model (`tutelage.files.folder_digest`), by which somebody vouches for them

    Raises RegistryError where there is no such version, where another model has another digest, and where a version
    can't teach this task: other columns, another horizon, more complete hours than the windows have, or training data
    that overlap the test part.
    """
    name, _, version = model.rpartition("/")
    try:
        folder = download_version(name, version)
    except RegistryError as error:
        raise RegistryError(f"teacher {model} can't be loaded from the registry: {error}") from error
    export = exported_in(folder)
    if not export.is_dir():
        if digest != (here := folder_digest(folder)):
            raise RegistryError(
                f"teacher {model} would run its own code when it is loaded, such as a pickle's; if you trust it, say "
                f"recipe.teacher.registered_digest: {here}"
            )
        get_run_logger().warning(
            "teacher %s does not say until when it was trained: make sure that it ends before the test part", model
        )
        return _by_predict(model, mlflow.pyfunc.load_model(str(folder)), spec)
    student = load_student(export)
    if _has_seen_test(student, features) and (before := evaluated_in(folder)) != export:
        get_run_logger().info(
            "teacher %s: its refit has seen the test part; who was evaluated before it teaches", model
        )
        student = load_student(before)
    _require_fit(model, student, features, spec)
    return partial(forecast_exported, student)


def _has_seen_test(student: Student, features: FeaturesManifest) -> bool:
    return student.trained_until > features.test.start_utc


def _require_fit(model: str, student: Student, features: FeaturesManifest, spec: DatasetSpec) -> None:
    card = student.card
    faults = differences(card, spec, horizon_hours=features.horizon_hours)
    if student.complete_hours > features.lookback_hours:
        faults.append(
            f"it needs {student.complete_hours} complete hours, and the windows have {features.lookback_hours}"
        )
    if _has_seen_test(student, features):
        faults.append(f"it was trained until {student.trained_until:%Y-%m-%d}, into the test part")
    if faults:
        raise RegistryError(f"teacher {model} can't teach {features.task}: {'; '.join(faults)}")


def _by_predict(model: str, loaded: PyFuncModel, spec: DatasetSpec) -> ForecastFunction:
    """A forecast function that calls a model's `predict` for one chunk of windows at a time."""
    observed, known = spec.names(Role.OBSERVED), spec.names(Role.KNOWN_FUTURE)

    def forecast(dataset: WindowDataset, origins: Tensor) -> Forecasts:
        parts = []
        for chunk in origins.cpu().split(CHUNK_WINDOWS):
            answer = pd.DataFrame(loaded.predict(_table(dataset, chunk, observed, known)))
            lacking = [name for name in ("series_id", "lead_hours", *QUANTILE_NAMES) if name not in answer]
            if lacking:
                raise RegistryError(f"teacher {model} does not return {', '.join(lacking[:3])}")
            ordered = answer.assign(series_id=answer["series_id"].astype(int)).sort_values(["series_id", "lead_hours"])
            if len(ordered) != len(chunk) * dataset.horizon:
                raise RegistryError(
                    f"teacher {model} returns {len(ordered)} rows for {len(chunk)} windows of {dataset.horizon}"
                )
            quantiles = ordered[list(QUANTILE_NAMES)].to_numpy(np.float64).reshape(len(chunk), dataset.horizon, -1)
            parts.append(quantiles / dataset.panel.size_at(chunk)[:, None, None])
        quantiles = np.concatenate(parts)
        return Forecasts(quantiles.mean(axis=-1), quantiles)

    return forecast


def _table(dataset: WindowDataset, origins: Tensor, observed: list[str], known: list[str]) -> pd.DataFrame:
    """The windows as a table, one series each; with known_future columns it includes the horizon's rows."""
    ahead = dataset.horizon if known else 0
    steps = np.arange(-dataset.lookback, ahead)
    rows = origins.numpy()[:, None] + steps
    values = dataset.panel.observed.cpu().numpy()[rows].astype(np.float64)
    values[:, dataset.lookback :] = np.nan
    planned = dataset.panel.known.cpu().numpy()[rows][..., 3:].astype(np.float64)
    if dataset.panel.sizes is not None:
        size = dataset.panel.size_at(origins)
        values, planned = (
            dataset.panel.sizes.times(each, names, size) for each, names in ((values, observed), (planned, known))
        )
    grid = dataset.panel.grid
    seconds = (grid.step // SECOND) * dataset.panel.step.cpu().numpy()[rows].ravel() + 60 * grid.begin_minute
    times = pd.to_datetime(seconds, unit="s", utc=True)
    table = pd.DataFrame({"series_id": np.repeat([str(i) for i in range(len(origins))], len(steps)), "time_utc": times})
    table[observed] = values.reshape(-1, len(observed))
    if known:
        table[known] = planned.reshape(-1, len(known))
    return table
