"""Small specs, grids, panels, datasets, soft labels and recipes that the core's tests share."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from hypothesis import settings
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from tutelage.data.dataset import Calendar, Column, DatasetSpec, QualityRules, Role, Timestamp
from tutelage.data.grid import HOURLY
from tutelage.data.source import Source
from tutelage.data.windows import Panel, Parts, Span
from tutelage.distil.dataset import WindowDataset, fit_on, make_dataset
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SoftLabels
from tutelage.model.architectures import NetworkConfig
from tutelage.model.kinds import Budget
from tutelage.model.layers import first_weights
from tutelage.model.networks import Forecaster
from tutelage.model.scaling import Scaler, Scalers

# The same examples on every machine, and no deadline: the first example pays for the import hooks.
PROPERTY = settings(deadline=None, derandomize=True)

CPU = torch.device("cpu")
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)  # a Monday
READINGS = 6  # an hour


def small_spec(*, complete_share: float = 0.9) -> DatasetSpec:
    """Readings every ten minutes: a target, a privileged mean and a privileged sum, in the spec's order reversed."""
    return DatasetSpec(
        name="small",
        description="a made-up meter",
        source=Source(path="nowhere.csv"),
        timestamp=Timestamp(columns=("time",), timezone="UTC"),
        target="power_kw",
        raw_step=dt.timedelta(minutes=60 // READINGS),
        student_step=dt.timedelta(hours=1),
        columns=(
            Column(
                name="heat_wh", source="h", role=Role.PRIVILEGED, unit="Wh", aggregation="sum", minimum=0, maximum=9
            ),
            Column(name="voltage_v", source="v", role=Role.PRIVILEGED, unit="V", minimum=200, maximum=260),
            Column(name="power_kw", source="p", role=Role.OBSERVED, unit="kW", minimum=0, maximum=15),
        ),
        calendar=Calendar(timezone="UTC"),
        quality=QualityRules(complete_share=complete_share),
    )


def grid_of(spec: DatasetSpec, readings: np.ndarray, *, series_id: str = "a") -> pl.DataFrame:
    """Readings (hours, readings an hour, columns) as one series of a regular grid; NaN becomes null."""
    flat = readings.reshape(-1, len(spec.columns))
    times = [START + i * spec.raw_step for i in range(len(flat))]
    keys = {"series_id": [series_id] * len(flat), "time_utc": times}
    values = {name: flat[:, place] for place, name in enumerate(spec.names())}
    return pl.DataFrame(keys | values).with_columns(pl.col(spec.names()).fill_nan(None))


def synthetic_panel(
    lengths: Sequence[int], *, seed: int = 0, missing: float = 0.0, starts: Sequence[int] | None = None
) -> Panel:
    """Noise in every column, one series of consecutive hours a length; a share of all observed values is NaN."""
    noise = np.random.default_rng(seed)
    hours = sum(lengths)
    offset = np.concatenate(
        [start + np.arange(n) for start, n in zip(starts or [0] * len(lengths), lengths, strict=True)]
    )
    observed = noise.normal(3.0, 2.0, (hours, 2))
    observed[noise.random((hours, 2)) < missing] = np.nan
    known = np.stack([offset % 24, offset // 24 % 7, np.zeros(hours)], axis=1)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))

    return Panel(
        observed=tensor(observed),
        known=tensor(known),
        auxiliary=tensor(noise.normal(-1.0, 4.0, (hours, 2))),
        minutes=tensor(noise.normal(0.0, 0.5, (hours, READINGS))),
        series=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        step=torch.from_numpy(HOURLY.index(START) + offset),
    )


def target_alone(panel: Panel) -> Panel:
    """The panel with no observed column beside the target."""
    return replace(panel, observed=panel.observed[:, :1].contiguous())


def hours_span(first: int, stop: int) -> Span:
    """From `first` up to `stop`, in hours since START."""
    return Span(START + dt.timedelta(hours=first), START + dt.timedelta(hours=stop))


def dataset_of(
    panel: Panel,
    *,
    train_hours: int,
    validation_hours: int | None = None,
    lookback: int = 4,
    horizon: int = 2,
    bins: int = 8,
) -> WindowDataset:
    """The first hours are the training part; then comes the validation part, and the test part is all that is left.

    Without `validation_hours` there is no test part.
    """
    end = 10**6
    test_start = end if validation_hours is None else train_hours + validation_hours
    train = hours_span(0, train_hours)
    parts = Parts(train=train, validation=hours_span(train_hours, test_start), test=hours_span(test_start, end))
    return make_dataset(panel, parts, fit_on(panel, train, bins=bins), lookback=lookback, horizon=horizon)


def dataset_to(dataset: WindowDataset, device: torch.device) -> WindowDataset:
    """The same dataset, resident on a device."""
    return replace(
        dataset,
        panel=dataset.panel.to(device),
        train=dataset.train.to(device),
        validation=dataset.validation.to(device),
        test=dataset.test.to(device),
        unlabelled=dataset.unlabelled.to(device),
    )


def random_labels(dataset: WindowDataset, origins: Tensor | None = None, *, seed: int = 0) -> SoftLabels:
    """Soft labels drawn by the seed, of these windows or of all that students learn from."""
    origins = dataset.taught() if origins is None else origins
    shape = len(origins), dataset.horizon, len(dataset.bins)
    logits = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return SoftLabels(origins, logits.log_softmax(dim=-1))


TEACHER_LEAVES = (
    "views",
    "more_views",
    "simple",
    "weights",
    "coupling",
    "kind",
    "ensemble_size",
    "horizons",
    "registered_model",
    "registered_digest",
    "noise_draws",
    "other_sites",
    "pretrained",
    "pretrained_folder",
    "pretrained_digest",
)
STUDENT_LEAVES = ("architecture", "recursive", "base", "head", "point_loss")


def recipe_of(**leaves: object) -> Recipe:
    """A recipe by the names of its leaves: `alpha`, `views`, `teacher_width`, `student_training`."""
    nested: dict[str, dict[str, object]] = {"teacher": {}, "student": {}, "distillation": {}}
    for name, value in leaves.items():
        group, _, leaf = name.partition("_")
        if group not in nested:
            group = "teacher" if name in TEACHER_LEAVES else "student" if name in STUDENT_LEAVES else "distillation"
            leaf = name
        nested[group][leaf] = value
    return Recipe.model_validate(nested)


def small_recipe(**leaves: object) -> Recipe:
    """A recipe that trains in a second: one view, narrow networks, few epochs, no dropout."""
    budget = Budget(epochs=4, patience=4, batch_size=32, learning_rate=3e-3, dropout=0.0)
    values = {
        "more_views": (),
        "small_data_alpha": None,
        "ensemble_size": 2,
        "teacher_width": 16,
        "student_width": 16,
        "noise_draws": 2,
        "teacher_training": budget,
        "student_training": budget,
    }
    return recipe_of(**(values | leaves))


def small_network(dataset: WindowDataset, *, members: int = 2, dropout: float = 0.0, seed: int = 0) -> Forecaster:
    """A student's network for a dataset, the same for the same seed."""
    config = NetworkConfig(dataset.lookback, dataset.horizon, 2, 3, 0, bins=len(dataset.bins), width=8, dropout=dropout)
    with first_weights(seed):
        return Forecaster(config, dataset.scalers, members)


def plain_scalers(*, observed: int, known: int) -> Scalers:
    """Scalers that leave every value as it is."""

    def plain(columns: int) -> Scaler:
        return Scaler((0.0,) * columns, (1.0,) * columns)

    return Scalers(observed=plain(observed), known=plain(known), auxiliary=plain(2), minutes=plain(1))


class Float64OnCpu(TorchFunctionMode):
    """While it is active, float64 is only made of what `Tensor.cpu` or NumPy gave: Apple's MPS has no float64.

    made: how often float64 was made of another type
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_cpu: list[Tensor] = []
        self.made = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name == "cpu":
            # A clone: on the CPU `cpu` gives back the very tensor, which may be elsewhere on other machines.
            result = result.clone()
            self.on_cpu.append(result)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name != "from_numpy" and _has_float64(tree_leaves(result)) and not _has_float64(given):
            self.made += 1
            certain = any(given[0] is tensor for tensor in self.on_cpu) if given else False
            assert certain, f"{name} makes float64 of what may be on another device"
        return result


def _has_float64(leaves: Sequence[Any]) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in leaves)
