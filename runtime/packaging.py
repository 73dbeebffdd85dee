"""An exported student as an MLflow model that needs only mlflow and onnxruntime to load."""

import importlib.metadata
import logging
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import Model

from tutelage.files import read_json
from tutelage.model.inference import CARD

logging.getLogger("mlflow.models.signature").setLevel(logging.WARNING)  # it logs how it infers

FORECASTER = Path(__file__).parent.parent / "serving" / "forecaster.py"


def write_model(path: Path, export: Path, example: pd.DataFrame, **options: Any) -> None:
    """Write an exported student as an MLflow model.

    example: the hours of one window, times as text; options: passed to `mlflow.pyfunc.save_model`
    """
    card = read_json(export / CARD)
    mlflow.pyfunc.save_model(
        path=str(path),
        python_model=str(FORECASTER),
        model_config={"observed": card["observed"], "known_future": card["known_future"]},
        artifacts={"student": str(export)},
        input_example=example.to_dict("records"),
        pip_requirements=[f"{p}=={importlib.metadata.version(p)}" for p in ("mlflow", "onnxruntime")],
        **options,
    )
    _complete_signature(path)


def _complete_signature(path: Path) -> None:
    """Add the model's outputs to its signature: from the type hints MLflow infers only the inputs."""
    model, meta = mlflow.pyfunc.load_model(str(path)), Model.load(str(path))
    forecast = model.predict(model.input_example)
    with warnings.catch_warnings():
        # MLflow uses functions that pandas has deprecated, and warns about missing integers, which don't occur here.
        warnings.simplefilter("ignore")
        outputs = mlflow.models.infer_signature(model_output=forecast).outputs
    meta.signature.outputs = outputs  # in place: a new signature would lose the inputs from type hints
    meta.save(str(path / "MLmodel"))
