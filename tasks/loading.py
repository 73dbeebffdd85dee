"""From manifests back to what the core works on."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file
from torch import Tensor

from schemas.manifests import FeaturesManifest
from tasks.caching import code_digest
from tutelage.dataset import DatasetSpec
from tutelage.distillation import Task
from tutelage.files import read_json, value_digest
from tutelage.fit import choose_device
from tutelage.heads import Bins
from tutelage.weights import read_scalers
from tutelage.windows import Panel, Span, make_panel, window_origins

JUDGED = "judged"
"""Where in a registered version's folder the student lies that was judged, before its refit."""
PAIR = ("student", "twin")
"""Those of whom one may be registered."""
SOFT_LABELS = "soft_labels.safetensors"
GATE = "gate.json"


def load_soft_labels(folder: Path, device: torch.device) -> dict[str, Tensor]:
    """A teacher's soft labels, log-probabilities (windows, horizon, bins): of validation, test, and all it teaches."""
    return load_file(folder / SOFT_LABELS, device=str(device))


def load_gate(folder: Path, device: torch.device) -> Tensor | None:
    """How far the students of a folder trusted their teacher, hour by hour (the mean over windows); None: no gate."""
    path = folder / GATE
    return torch.tensor(read_json(path)["mean_by_hour"], device=device) if path.exists() else None


def load_panel(features: FeaturesManifest, spec: DatasetSpec) -> Panel:
    """The panel of a features manifest, on the CPU."""
    hours = pl.read_parquet(features.folder / "hourly.parquet")
    return make_panel(hours, np.load(features.folder / "minutes.npy"), spec)


def load_task(
    features: FeaturesManifest, spec: DatasetSpec, device: str, *, unlabelled: bool = False
) -> tuple[Task, Tensor]:
    """The learning task of a features manifest, resident on a device, and the origins of the test part's windows.

    With `unlabelled`, windows of the training part without a target come along.
    """
    place = choose_device(device)
    panel = load_panel(features, spec)
    fitted = read_json(features.folder / "fitted.json")

    def origins(part: str, *, labelled: bool = True) -> Tensor:
        span = getattr(features, part)
        return window_origins(
            panel,
            Span(span.start_utc, span.end_utc),
            lookback=features.lookback_hours,
            horizon=features.horizon_hours,
            labelled=labelled,
        ).to(place)

    task = Task(
        panel=panel.to(place),
        lookback=features.lookback_hours,
        horizon=features.horizon_hours,
        train=origins("train"),
        validation=origins("validation"),
        scalers=read_scalers(fitted["scalers"]),
        bins=Bins(tuple(fitted["bins"])),
        unlabelled=origins("train", labelled=False) if unlabelled else origins("train")[:0],
    )
    return task, origins("test")


def piece_checkpoint(home: Path, *content: Any) -> Path:
    """Where a piece of a study keeps its checkpoint: one place for the same content and code, whichever run it is."""
    return home / "checkpoints" / f"{value_digest([*content, code_digest()])}.safetensors"


def run_folder(home: Path, run_id: str, stage: str) -> Path:
    """Where a stage of a run keeps its checkpoint and its results."""
    return home / "runs" / run_id / stage
