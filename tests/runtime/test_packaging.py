import importlib.metadata
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
from mlflow.models import Model

from runtime.packaging import write_model
from tests.runtime.builders import exported_student, window_of
from tests.tutelage.data.builders import HOUR, START, meter
from tutelage.data.calendar import calendar_features
from tutelage.forecasts import QUANTILE_NAMES
from tutelage.model.inference import forecast_windows, load_student


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and the export that it was made from."""
    folder = tmp_path_factory.mktemp("packaging")
    export = exported_student(folder / "export")
    write_model(folder / "model", export, window_of(), metadata={"task": "meter-2h"})
    return folder / "model", export


def test_write_model__forecasts_as_the_exported_student(written: tuple[Path, Path]) -> None:
    path, export = written
    forecast = mlflow.pyfunc.load_model(str(path)).predict(window_of())
    observed = window_of()[["power_kw", "indoor_c"]].to_numpy()
    ahead = pl.Series([START, START + HOUR], dtype=pl.Datetime("us", "UTC"))
    known = calendar_features(ahead, meter().calendar).to_numpy()
    expected = forecast_windows(load_student(export), observed[None], known[None])
    assert forecast["lead_hours"].tolist() == [1, 2]
    np.testing.assert_allclose(forecast["mean"], expected.mean[0], rtol=1e-6)
    np.testing.assert_allclose(forecast[list(QUANTILE_NAMES)], expected.quantiles[0], rtol=1e-6)


def test_write_model__signs_what_it_takes_and_gives(written: tuple[Path, Path]) -> None:
    signature = Model.load(str(written[0])).signature
    assert all(name in str(signature.inputs) for name in ("series_id", "time_utc", "power_kw", "indoor_c"))
    outputs = signature.outputs.input_names()
    assert outputs == ["series_id", "issue_time_utc", "time_utc", "lead_hours", "mean", *QUANTILE_NAMES]


def test_write_model__contains_the_export_and_what_it_needs(written: tuple[Path, Path]) -> None:
    path, export = written
    copied = path / "artifacts" / "export"
    assert {file.name for file in copied.iterdir()} == {"student.onnx", "student.json"}
    assert all((copied / file.name).read_bytes() == file.read_bytes() for file in export.iterdir())
    needs = (path / "requirements.txt").read_text().split()
    assert needs == [f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", "onnxruntime")]
    assert Model.load(str(path)).metadata == {"task": "meter-2h"}
