"""Pretrained models as teachers: forecasts of a model that was trained on other people's data, as it comes.

Either one that is installed as a package (`teacher.pretrained`), or a Chronos model of which a user has the weights in
a folder (`teacher.pretrained_folder`): Chronos-Bolt (after Ansari et al. 2024, arXiv:2403.07815) or Chronos-2 (Ansari
et al. 2025, arXiv:2510.15821), by the package chronos-forecasting (Apache-2.0). It reads nothing but the folder's
safetensors and configuration, and runs no code of the folder's. Each sees up to 28 days of the target's past.

A model may have seen a public dataset in its training; results on it say so.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from tutelage.data.grid import HOUR
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.recipe import Recipe
from tutelage.distil.teacher_recipe import TeacherRecipe
from tutelage.distil.teachers import ForecastFunction
from tutelage.errors import SpecError, TutelageError
from tutelage.files import file_digest, read_json, value_digest
from tutelage.forecasts import Forecasts, interpolated
from tutelage.model.kinds import PRETRAINED_HOURS, Pretrained
from tutelage.model.pretrained import CONTEXT_DAYS, pretrained_network
from tutelage.model.threads import stop_if_given_up

FOLDER = "recipe.teacher.pretrained_folder"
CONFIG, WEIGHTS, ADAPTER = "config.json", "model.safetensors", "adapter_config.json"
CHRONOS_WINDOWS = 256
"""Windows per call of a Chronos model."""


def pretrained_teacher(recipe: TeacherRecipe, *, horizon: int) -> ForecastFunction | None:
    """The pretrained model among a recipe's teachers, for a horizon in steps; None where there is none.

    Raises what `load_pretrained` and `load_chronos` raise.
    """
    if recipe.pretrained_folder is not None:
        return load_chronos(Path(recipe.pretrained_folder), horizon=horizon, digest=recipe.pretrained_digest)
    return load_pretrained(recipe.pretrained) if recipe.pretrained is not None else None


def with_pretrained_digest(recipe: Recipe) -> Recipe:
    """The recipe with the digest of its pretrained model's files, so that what is finished is known from others.

    Raises SpecError where the folder has none.
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
        return model.in_chunks(_context(dataset, origins)).numpy()[:, : dataset.horizon]

    return _cached(forecast, model.levels)


def load_chronos(folder: Path, *, horizon: int, digest: str | None = None) -> ForecastFunction:
    """A Chronos model as a forecast function, on the dataset's device. No window is computed twice.

    horizon: number of steps that it forecasts
    digest: that of the files (`weights_digest`), where no others will do

    Raises TutelageError where the package is not installed, and SpecError where the files are not there, are others,
    are broken or incomplete, or hold a model that forecasts no quantiles, or fewer steps.
    """
    actual = weights_digest(folder)
    if digest not in (None, actual):
        raise SpecError(
            f"recipe.teacher.pretrained_digest is {digest}, and the files in {folder} have {actual}: they have changed "
            "since; bring them back, or start anew without a digest"
        )
    pipeline = _chronos_pipeline(folder)
    if horizon > pipeline.model_prediction_length:
        raise SpecError(
            f"{FOLDER}: the model in {folder} forecasts up to {pipeline.model_prediction_length} steps, not {horizon}"
        )
    takes_variables = type(pipeline).__name__ == "Chronos2Pipeline"  # windows, variables, steps

    def forecast(dataset: WindowDataset, origins: Tensor) -> Float[np.ndarray, "windows horizon levels"]:
        pipeline.model.to(dataset.panel.observed.device)
        by_window: list[Tensor] = []
        for part in origins.split(CHRONOS_WINDOWS):
            stop_if_given_up()
            past = _context(dataset, part)[:, -pipeline.model_context_length :]
            by_window += pipeline.predict(past[:, None] if takes_variables else past, prediction_length=horizon)
        quantiles = torch.stack([each.reshape(-1, horizon) for each in by_window])
        return quantiles.transpose(1, 2).sort(dim=-1).values.float().cpu().numpy()

    return _cached(forecast, pipeline.quantiles)


def weights_digest(folder: Path) -> str:
    """Digest of the files of a Chronos model: its configuration and its weights.

    Raises SpecError where one of them is not there, or the folder has an adapter, whose base is elsewhere.
    """
    if not (folder / CONFIG).is_file() or not _weights_in(folder):
        raise SpecError(
            f"{FOLDER}: {folder} has no {CONFIG} and {WEIGHTS}, the files of a Chronos model; it must be a folder of "
            "the machine that trains"
        )
    if (folder / ADAPTER).exists():
        raise SpecError(f"{FOLDER}: {folder} holds an adapter ({ADAPTER}); merge it into its model")
    try:
        return value_digest({file.name: file_digest(file) for file in [*folder.glob("*.json"), *_weights_in(folder)]})
    except OSError as error:
        raise SpecError(f"{FOLDER}: {folder} can't be read: {error}") from error


def _weights_in(folder: Path) -> list[Path]:
    """The files that the package loads: one, or those that an index names."""
    whole, index = folder / WEIGHTS, folder / f"{WEIGHTS}.index.json"
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else []
    return sorted({folder / name for name in read_json(index).get("weight_map", {}).values()})


def _chronos_pipeline(folder: Path) -> Any:
    try:
        from chronos import BaseChronosPipeline, ForecastType
        from transformers.utils import logging
    except ImportError as error:
        raise TutelageError(
            f"{FOLDER}: the package chronos-forecasting can't be imported ({error}): pip install 'tutelage[chronos]'"
        ) from error
    logging.disable_progress_bar()  # a bar for each weight that is loaded
    trusted = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    try:
        pipeline = BaseChronosPipeline.from_pretrained(str(folder), dtype="float32", **trusted)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the packages have no class of their own for what they can't read
        raise SpecError(f"{FOLDER}: {folder} holds no Chronos model that can be loaded: {error}") from error
    if pipeline.forecast_type is not ForecastType.QUANTILES:
        raise SpecError(
            f"{FOLDER}: {folder} holds a Chronos model of the first generation, which draws samples; Chronos-Bolt and "
            "Chronos-2 forecast quantiles"
        )
    _require_complete(pipeline.model, folder)
    return pipeline


def _require_complete(model: torch.nn.Module, folder: Path) -> None:
    """Raise SpecError where the files lack weights of the model: the package draws them at random instead.

    Weights that a model uses in several places stand in the file once.
    """
    written: set[str] = set()
    for file in _weights_in(folder):
        with safe_open(file, framework="pt") as tensors:
            written |= set(tensors.keys())
    state = model.state_dict()
    there = {state[name].data_ptr() for name in written & state.keys()}
    lacking = sorted(name for name, value in state.items() if value.data_ptr() not in there)
    if lacking:
        raise SpecError(
            f"{FOLDER}: {folder} lacks {len(lacking)} of the model's {len(state)} weights, such as {lacking[0]}"
        )


def _cached(
    native: Callable[[WindowDataset, Tensor], Float[np.ndarray, "windows horizon levels"]], levels: Sequence[float]
) -> ForecastFunction:
    """Forecasts from a model's own quantiles, each window computed once."""
    known: dict[int, np.ndarray] = {}
    alone = Lock()  # blocks train side by side, and ask for the same windows

    def forecast(dataset: WindowDataset, origins: Tensor) -> Forecasts:
        with alone:
            fresh = torch.tensor([origin for origin in origins.tolist() if origin not in known], dtype=torch.int64)
            if len(fresh):
                known.update(zip(fresh.tolist(), native(dataset, fresh), strict=True))
        return interpolated(np.stack([known[origin] for origin in origins.tolist()]), levels)

    return forecast


def _context(dataset: WindowDataset, origins: Tensor) -> Float[Tensor, "windows steps"]:
    """The target's past of each window, on the CPU; NaN where there is none."""
    steps = dataset.panel.grid.of_day * CONTEXT_DAYS
    return dataset.long_past(origins.to(dataset.panel.step.device), steps, complete=0)[..., 0].cpu().float()
