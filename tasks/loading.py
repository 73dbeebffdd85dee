"""From manifests back to what the core works on."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
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


def load_panel(features: FeaturesManifest, spec: DatasetSpec) -> Panel:
    """The panel of a features manifest, on the CPU."""
    hours = pl.read_parquet(features.folder / "hourly.parquet")
    return make_panel(hours, np.load(features.folder / "minutes.npy"), spec)


def load_task(features: FeaturesManifest, spec: DatasetSpec, device: str) -> tuple[Task, Tensor]:
    """The learning task of a features manifest, resident on a device, and the origins of the test part's windows."""
    place = choose_device(device)
    panel = load_panel(features, spec)
    fitted = read_json(features.folder / "fitted.json")

    def origins(part: str) -> Tensor:
        span = getattr(features, part)
        lookback, horizon = features.lookback_hours, features.horizon_hours
        return window_origins(panel, Span(span.start_utc, span.end_utc), lookback=lookback, horizon=horizon).to(place)

    task = Task(
        panel=panel.to(place),
        lookback=features.lookback_hours,
        horizon=features.horizon_hours,
        train=origins("train"),
        validation=origins("validation"),
        scalers=read_scalers(fitted["scalers"]),
        bins=Bins(tuple(fitted["bins"])),
    )
    return task, origins("test")


def piece_checkpoint(home: Path, *content: Any) -> Path:
    """Where a piece of a study keeps its checkpoint: one place for the same content and code, whichever run it is."""
    return home / "checkpoints" / f"{value_digest([*content, code_digest()])}.safetensors"


def run_folder(home: Path, run_id: str, stage: str) -> Path:
    """Where a stage of a run keeps its checkpoint and its results."""
    return home / "runs" / run_id / stage
