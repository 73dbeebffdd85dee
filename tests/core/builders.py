"""Small specs, grids, panels and learning tasks that the core's tests share."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from hypothesis import settings
from torch import Tensor

from tutelage.dataset import Calendar, Column, DatasetSpec, QualityRules, Role, Source, Timestamp
from tutelage.distillation import Task
from tutelage.fit import seeded
from tutelage.heads import fit_bins
from tutelage.networks import Forecaster, Scaler, Scalers, Shape, fit_scalers
from tutelage.recipe import Budget, Recipe
from tutelage.windows import Panel, Span, epoch_hour, window_origins

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
        hour=torch.from_numpy(epoch_hour(START) + offset),
    )


def target_alone(panel: Panel) -> Panel:
    """The panel with no observed column beside the target."""
    return replace(panel, observed=panel.observed[:, :1].contiguous())


def hours_span(first: int, stop: int) -> Span:
    """From `first` up to `stop`, in hours since START."""
    return Span(START + dt.timedelta(hours=first), START + dt.timedelta(hours=stop))


def task_of(panel: Panel, *, train_hours: int, lookback: int = 4, horizon: int = 2, bins: int = 8) -> Task:
    """The first hours are the training part, the rest is the validation part."""
    train, validation = hours_span(0, train_hours), hours_span(train_hours, 10**6)
    inside = panel.hour < train.hours.stop
    return Task(
        panel=panel,
        lookback=lookback,
        horizon=horizon,
        train=window_origins(panel, train, lookback=lookback, horizon=horizon),
        validation=window_origins(panel, validation, lookback=lookback, horizon=horizon),
        scalers=fit_scalers(panel, train),
        bins=fit_bins(panel.observed[inside, 0].numpy(), bins),
    )


def task_to(task: Task, device: torch.device) -> Task:
    """The same task, resident on a device."""
    return replace(
        task, panel=task.panel.to(device), train=task.train.to(device), validation=task.validation.to(device)
    )


def small_recipe(**changes: object) -> Recipe:
    """A recipe that trains in a second: one view, narrow networks, few epochs, no dropout."""
    budget = Budget(epochs=4, patience=4, batch_size=32, learning_rate=3e-3, dropout=0.0)
    values = {
        "more_views": (),
        "few_alpha": None,
        "teachers": 2,
        "teacher_width": 16,
        "student_width": 16,
        "draws": 2,
        "teacher_budget": budget,
        "student_budget": budget,
    }
    return Recipe.model_validate(values | changes)


def small_network(task: Task, *, members: int = 2, dropout: float = 0.0, seed: int = 0) -> Forecaster:
    """A student's network for a task, the same for the same seed."""
    shape = Shape(task.lookback, task.horizon, 2, 3, 0, bins=len(task.bins), width=8, dropout=dropout)
    with seeded(seed, CPU):
        return Forecaster(shape, task.scalers, members)


def plain_scalers(*, observed: int, known: int) -> Scalers:
    """Scalers that leave every value as it is."""

    def plain(columns: int) -> Scaler:
        return Scaler((0.0,) * columns, (1.0,) * columns)

    return Scalers(observed=plain(observed), known=plain(known), auxiliary=plain(2), minutes=plain(1))
