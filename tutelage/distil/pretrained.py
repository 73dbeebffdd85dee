"""Pretrained models as teachers: forecasts of a model that was trained on other people's data, as it comes.

Either one that is installed as a package (`teacher.pretrained`), or a Chronos model of which a user has the weights in
a folder (`teacher.pretrained_folder`): Chronos-Bolt or Chronos-2 (Ansari et al. 2025, arXiv:2510.15821), by the package
chronos-forecasting (Apache-2.0). It is asked for nothing but the folder's files, and only for safetensors, which hold
no code. Each sees up to 28 days of the target's past.

A model may have seen a public dataset in its training; results on it say so.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tutelage.data.grid import HOUR
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.recipe import Recipe
from tutelage.distil.teacher_recipe import TeacherRecipe
from tutelage.distil.teachers import ForecastFunction
from tutelage.errors import TutelageError
from tutelage.files import file_digest, value_digest
from tutelage.forecasts import Forecasts, interpolated
from tutelage.model.kinds import PRETRAINED_HOURS, Pretrained
from tutelage.model.pretrained import CONTEXT_DAYS, pretrained_network

CONFIG, WEIGHTS = "config.json", "*.safetensors"
CHRONOS_WINDOWS = 256
"""Windows per call of a Chronos model."""


def pretrained_teacher(recipe: TeacherRecipe, *, horizon: int) -> ForecastFunction | None:
    """The pretrained model among a recipe's teachers, for a horizon in steps; None where there is none.

    Raises TutelageError as `load_pretrained` and `load_chronos`.
    """
    if recipe.pretrained_folder is not None:
        return load_chronos(Path(recipe.pretrained_folder), horizon=horizon, digest=recipe.pretrained_digest)
    return load_pretrained(recipe.pretrained) if recipe.pretrained is not None else None


def with_pretrained_digest(recipe: Recipe) -> Recipe:
    """The recipe with the digest of its pretrained model's files, so that cached stages know them from others.

    Raises TutelageError where the folder has none.
    """
    teacher = recipe.teacher
    if teacher.pretrained_folder is None or teacher.pretrained_digest is not None:
        return recipe
    return recipe.override({"teacher.pretrained_digest": weights_digest(Path(teacher.pretrained_folder))})


def load_pretrained(name: Pretrained) -> ForecastFunction:
    """An installed model as a forecast function, on the CPU. A window that it has forecast is not computed again.

    Raises TutelageError where its package is not installed, and when called where steps or horizon aren't its own.
    """
    model = pretrained_network(name)

    def forecast(dataset: WindowDataset, origins: Tensor) -> Float[np.ndarray, "windows horizon levels"]:
        if dataset.panel.grid.step != HOUR:
            raise TutelageError(f"{name} forecasts hours, not steps of {dataset.panel.grid.name}")
        if dataset.horizon > PRETRAINED_HOURS[name]:
            raise TutelageError(f"{name} forecasts up to {PRETRAINED_HOURS[name]} h, not {dataset.horizon} h")
        return model.in_chunks(_context(dataset, origins).cpu()).numpy()[:, : dataset.horizon]

    return _remembering(forecast, model.levels)


def load_chronos(folder: Path, *, horizon: int, digest: str | None = None) -> ForecastFunction:
    """A Chronos model as a forecast function, on the dataset's device. No window is computed twice.

    horizon: number of steps that it forecasts
    digest: that of the files (`weights_digest`), where no others will do

    Raises TutelageError where package or files are not there, the files are others, or hold a model that forecasts no
    quantiles, or fewer steps.
    """
    actual = weights_digest(folder)
    if digest not in (None, actual):
        raise TutelageError(
            f"teacher.pretrained_digest is {digest}, and the model in {folder} has {actual}: bring back its files, or "
            "leave the digest empty"
        )
    pipeline = _chronos_pipeline(folder)
    if not hasattr(pipeline, "quantiles"):
        raise TutelageError(
            f"teacher.pretrained_folder: {folder} has a Chronos model of samples; Chronos-Bolt and Chronos-2 forecast "
            "quantiles"
        )
    if horizon > pipeline.model_prediction_length:
        raise TutelageError(
            f"teacher.pretrained_folder: the model in {folder} forecasts up to {pipeline.model_prediction_length} "
            f"steps, not {horizon}"
        )
    several = type(pipeline).__name__ == "Chronos2Pipeline"  # it takes several variables of each window

    def forecast(dataset: WindowDataset, origins: Tensor) -> Float[np.ndarray, "windows horizon levels"]:
        pipeline.model.to(dataset.panel.observed.device)
        answers: list[Tensor] = []
        for part in _context(dataset, origins).split(CHRONOS_WINDOWS):
            answers += pipeline.predict(part[:, None] if several else part, prediction_length=horizon)
        quantiles = torch.stack([answer.reshape(-1, horizon) for answer in answers])
        return quantiles.transpose(1, 2).sort(dim=-1).values.float().cpu().numpy()

    return _remembering(forecast, pipeline.quantiles)


def weights_digest(folder: Path) -> str:
    """Digest of the files of a Chronos model: its configuration and its weights.

    Raises TutelageError where one of them is not there.
    """
    files = [folder / CONFIG, *sorted(folder.glob(WEIGHTS))]
    if len(files) < 2 or not files[0].is_file():
        raise TutelageError(
            f"teacher.pretrained_folder: {folder} has no {CONFIG} and {WEIGHTS}, the files of a Chronos model; it must "
            "be a folder of the machine that trains"
        )
    return value_digest({file.name: file_digest(file) for file in files})


def _chronos_pipeline(folder: Path) -> Any:
    try:
        from chronos import BaseChronosPipeline
        from transformers.utils import logging as bars
    except ImportError:
        raise TutelageError(
            "teacher.pretrained_folder: the package chronos-forecasting is not installed: "
            "pip install 'tutelage[chronos]'"
        ) from None
    bars.disable_progress_bar()  # a bar for each weight that is loaded
    try:
        return BaseChronosPipeline.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype="float32", device_map="cpu"
        )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise TutelageError(f"teacher.pretrained_folder: {folder} holds no Chronos model: {error}") from error


def _remembering(
    native: Callable[[WindowDataset, Tensor], Float[np.ndarray, "windows horizon levels"]], levels: Sequence[float]
) -> ForecastFunction:
    """Forecasts from a model's own quantiles, each window computed once."""
    known: dict[int, np.ndarray] = {}

    def forecast(dataset: WindowDataset, origins: Tensor) -> Forecasts:
        fresh = torch.tensor([origin for origin in origins.tolist() if origin not in known], dtype=torch.int64)
        if len(fresh):
            known.update(zip(fresh.tolist(), native(dataset, fresh), strict=True))
        return interpolated(np.stack([known[origin] for origin in origins.tolist()]), levels)

    return forecast


def _context(dataset: WindowDataset, origins: Tensor) -> Float[Tensor, "windows steps"]:
    """The target's past of each window, NaN where there is none."""
    steps = dataset.panel.grid.of_day * CONTEXT_DAYS
    return dataset.long_past(origins.to(dataset.panel.step.device), steps, complete=0)[..., 0].float()
