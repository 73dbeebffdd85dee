"""The files that stages exchange: their names, readers and writers."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.retrain import Evaluation, FeaturesManifest, TrainedManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.data.sizes import Sizes, sizes_from
from tutelage.data.windows import Panel, make_panel
from tutelage.distil.blocks import BLOCKS, BlockLabels
from tutelage.distil.dataset import Fitted, WindowDataset, make_dataset
from tutelage.distil.pipeline import PartLabels
from tutelage.distil.recipe import TrainingPlan
from tutelage.distil.sites import add_sites
from tutelage.distil.soft_labels import SoftLabels
from tutelage.files import read_json, write_json
from tutelage.forecasts import Contender
from tutelage.judge.comparison import Losses
from tutelage.judge.metrics import ScoredForecasts
from tutelage.judge.series import SeriesScore
from tutelage.model.aggregation import Atom
from tutelage.model.architectures import States
from tutelage.model.base import Base, Changes
from tutelage.model.heads import Bins
from tutelage.model.inference import grid_of, plain_grid
from tutelage.model.linear import LinearForecaster
from tutelage.model.training import choose_device
from tutelage.model.trees import Trees
from tutelage.model.weights import read_scalers, write_scalers

TABLE = "table.parquet"
MINUTES = "minutes.npy"
FITTED = "fitted.json"
OTHER_SITES = "other_sites.safetensors"
SOFT_LABELS = "soft_labels.safetensors"
STATES = "states.safetensors"
GATE = "gate.json"
BASE = "base.safetensors"
HELD_OUT = "held_out.json"
HISTORY = "history.json"
EVALUATION = "evaluation.json"
VERDICT = "verdict.json"
BY_LEAD = "by_lead.json"
BY_SERIES = "by_series.json"
LOSSES = "losses.safetensors"
EXPORT = "export"

History = dict[Contender, list[dict[str, float]]]
"""Mean training and validation loss by epoch of each contender."""


def write_features(
    folder: Path, hours: pl.DataFrame, minutes: np.ndarray, fitted: Fitted, sizes: Sizes | None = None
) -> None:
    """Write the student's table, the readings within its steps, the scalers and bins, and the series' sizes."""
    hours.write_parquet(folder / TABLE)
    np.save(folder / MINUTES, minutes)
    write_json(folder / FITTED, plain_fitted(fitted, sizes))


def plain_fitted(fitted: Fitted, sizes: Sizes | None = None) -> dict[str, Any]:
    """Scalers, bins and the sizes of several series as plain values."""
    plain = {"scalers": write_scalers(fitted.scalers), "bins": list(fitted.bins.edges)}
    return plain if sizes is None else plain | {"sizes": asdict(sizes)}


def read_table(features: FeaturesManifest) -> pl.DataFrame:
    """Read the student's table of a features manifest."""
    return pl.read_parquet(features.folder / TABLE)


def write_other_sites(folder: Path, panel: Panel) -> None:
    """Write what teachers see of other sites: the observed and known columns of their series."""
    names = ("observed", "known", "series", "step")
    grid = {name: str(value) for name, value in plain_grid(panel.grid).items()}
    save_file({name: getattr(panel, name).contiguous() for name in names}, folder / OTHER_SITES, metadata=grid)


def with_other_sites(dataset: WindowDataset, features: FeaturesManifest, *, until: dt.datetime) -> WindowDataset:
    """The dataset with windows of other sites before a time, where the features have some."""
    path = features.folder / OTHER_SITES
    if not path.exists():
        return dataset
    with safe_open(path, "pt") as file:
        tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        grid = grid_of({name: int(value) for name, value in file.metadata().items()})
    nothing = torch.zeros(len(tensors["step"]), 0)
    others = Panel(**tensors, auxiliary=nothing, minutes=nothing, grid=grid)
    return add_sites(dataset, others, until_step=others.grid.index(until))


def read_panel(features: FeaturesManifest, spec: DatasetSpec) -> Panel:
    """Read the panel of a features manifest, on the CPU."""
    sizes = sizes_from(read_json(features.folder / FITTED))
    return make_panel(read_table(features), np.load(features.folder / MINUTES), spec, sizes)


def read_dataset(features: FeaturesManifest, spec: DatasetSpec, plan: TrainingPlan) -> WindowDataset:
    """Read the windows of a features manifest, on the plan's device."""
    fitted = read_json(features.folder / FITTED)
    dataset = make_dataset(
        read_panel(features, spec).to(choose_device(plan.device)),
        features.parts,
        Fitted(read_scalers(fitted["scalers"]), Bins(tuple(fitted["bins"]))),
        lookback=spec.grid.steps(features.lookback_hours),
        horizon=spec.grid.steps(features.horizon_hours),
        unlabelled=plan.recipe.distillation.unlabelled,
    )
    return with_other_sites(dataset, features, until=features.test.start_utc)


def _tensors_of(labels: SoftLabels, part: str) -> dict[str, Tensor]:
    return {
        f"{part}.origins": labels.origins.cpu().contiguous(),
        f"{part}.log_probabilities": labels.log_probabilities.cpu().contiguous(),
    }


def _labels_of(tensors: dict[str, Tensor], part: str) -> SoftLabels:
    return SoftLabels(tensors[f"{part}.origins"], tensors[f"{part}.log_probabilities"])


def write_labels(folder: Path, labels: PartLabels) -> Path:
    """Write the soft labels of all parts; return the file."""
    tensors = {name: value for part in vars(labels) for name, value in _tensors_of(getattr(labels, part), part).items()}
    save_file(tensors, folder / SOFT_LABELS)
    return folder / SOFT_LABELS


def read_labels(folder: Path, device: torch.device) -> PartLabels:
    """Read the soft labels of all parts, on a device."""
    tensors = load_file(folder / SOFT_LABELS, device=str(device))
    return PartLabels(*(_labels_of(tensors, part) for part in PartLabels.__dataclass_fields__))


def write_block_labels(folder: Path, labels: BlockLabels) -> None:
    """Write the soft labels of the whole history, and those of each block into a subfolder."""
    write_labels(folder, labels.whole)
    for number, block in enumerate(labels.blocks, start=1):
        path = block_folder(folder, number)
        path.mkdir(exist_ok=True)
        write_labels(path, block)


def read_block_labels(folder: Path, device: torch.device) -> BlockLabels:
    """Read the soft labels of each block and of the whole history, on a device."""
    blocks = tuple(read_labels(block_folder(folder, number), device) for number in range(1, BLOCKS + 1))
    return BlockLabels(blocks, read_labels(folder, device))


def block_folder(folder: Path, number: int) -> Path:
    """The subfolder of what was trained without a block; numbers begin with 1."""
    return folder / f"block-{number}"


def write_states(folder: Path, states: States) -> None:
    """Write a teacher's hidden states for the windows that students learn from."""
    tensors = {name: value.cpu().contiguous() for name, value in vars(states).items() if value is not None}
    save_file(tensors, folder / STATES)


def read_states(folder: Path, device: torch.device) -> States | None:
    """Read a teacher's hidden states, on a device; None where none were written."""
    path = folder / STATES
    return States(**load_file(path, device=str(device))) if path.exists() else None


def write_gate(folder: Path, gate: Tensor) -> None:
    """Write the gate by hour of the horizon, averaged over windows."""
    write_json(folder / GATE, {"mean_by_hour": gate.tolist()})


def read_gate(folder: Path) -> list[float] | None:
    """Read the gate by hour of the horizon; None where there is no gate."""
    path = folder / GATE
    return list(read_json(path)["mean_by_hour"]) if path.exists() else None


def write_base(folder: Path, base: Base) -> None:
    """Write what a contender is averaged with."""
    parts = {"linear": base.linear, "trees": base.trees, "changes": base.changes}
    fitted = {name: {} if part is None else vars(part) for name, part in parts.items()}
    tensors = {
        f"{part}.{name}": torch.from_numpy(values).contiguous()
        for part, arrays in fitted.items()
        for name, values in arrays.items()
    }
    atom = None if base.atom is None else vars(base.atom)
    grid = plain_grid(base.grid)
    plain = {"weights": dict(base.weights), "atom": atom, "pretrained": base.pretrained, "grid": grid}
    save_file(tensors, folder / BASE, metadata={name: json.dumps(value) for name, value in plain.items()})


def read_base(folder: Path) -> Base | None:
    """What a contender is averaged with; None: nothing."""
    path = folder / BASE
    if not path.exists():
        return None
    arrays: dict[str, dict[str, np.ndarray]] = {"linear": {}, "trees": {}, "changes": {}}
    with safe_open(path, "np") as file:
        names = ("weights", "atom", "pretrained", "grid")
        weights, atom, pretrained, grid = (json.loads(file.metadata()[name]) for name in names)
        for key in file.keys():  # noqa: SIM118 - a safe_open is no dict
            part, name = key.split(".")
            arrays[part][name] = file.get_tensor(key)
    linear = LinearForecaster(**arrays["linear"]) if arrays["linear"] else None
    trees = Trees(**arrays["trees"]) if arrays["trees"] else None
    weights = {Contender(name): weight for name, weight in weights.items()}
    atom = None if atom is None else Atom(**atom)
    return Base(weights, linear, trees, Changes(**arrays["changes"]), atom, pretrained, grid_of(grid))


def write_held_out(folder: Path, crps_by_name: dict[Contender, float]) -> None:
    """Write CRPS on the held-out blocks, by contender, in the target's unit."""
    write_json(folder / HELD_OUT, crps_by_name)


def read_held_out(folder: Path) -> dict[Contender, float]:
    """Read CRPS on the held-out blocks, by contender, in the target's unit."""
    return {Contender(name): value for name, value in read_json(folder / HELD_OUT).items()}


def write_history(folder: Path, history: History) -> None:
    """Write the losses by epoch of each contender."""
    write_json(folder / HISTORY, history)


def read_history(trained: TrainedManifest) -> History:
    """Read the losses by epoch of each contender."""
    return {Contender(name): rows for name, rows in read_json(trained.folder / HISTORY).items()}


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    scored: dict[Contender, ScoredForecasts],
    by_series: Sequence[SeriesScore],
    *,
    step_hours: float = 1,
) -> Path:
    """Write the evaluation and, next to it, the scores by lead time and by series; return the evaluation's file."""
    by_lead = {
        name: [{"lead_hours": lead * step_hours, **vars(scores)} for lead, scores in enumerate(each.by_lead, start=1)]
        for name, each in scored.items()
    }
    write_json(folder / BY_LEAD, by_lead)
    if by_series:
        write_json(folder / BY_SERIES, [asdict(each) for each in by_series])
    write_json(folder / EVALUATION, evaluation.model_dump(mode="json"))
    return folder / EVALUATION


def write_losses(path: Path, losses: Losses) -> None:
    """Write the CRPS by issue time of all contenders, in single precision."""
    by_contender = {str(name): torch.from_numpy(values).float() for name, values in losses.by_contender.items()}
    save_file({"step": torch.from_numpy(losses.step), **by_contender}, path)


def read_losses(path: Path) -> Losses:
    """Read the CRPS by issue time of all contenders."""
    tensors = {name: values.numpy() for name, values in load_file(path).items()}
    step = tensors.pop("step")
    return Losses(step, {Contender(name): values.astype(np.float64) for name, values in tensors.items()})


def read_evaluation(path: Path) -> Evaluation:
    """Read an evaluation."""
    return Evaluation.model_validate(read_json(path))
