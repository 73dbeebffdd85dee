"""The student as a file: an ONNX graph with scaler, head and quantiles inside, and a card of plain values.

A folder with `student.onnx` and `student.json` is all that a forecast needs. `load_student` reads it back with
onnxruntime; `forecast_windows` runs it, and `forecast_readings` goes all the way from raw readings.
"""

import datetime as dt
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tutelage.calendar import calendar_features, public_holidays
from tutelage.dataset import DatasetSpec, Role
from tutelage.errors import DataError
from tutelage.files import folder_written_whole, read_json, write_json
from tutelage.heads import QUANTILE_LEVELS, Bins, forecast_of
from tutelage.metrics import Forecasts
from tutelage.networks import Forecaster
from tutelage.quality import clean
from tutelage.resample import hourly_table

HOLIDAY_YEARS_AHEAD = 10


class _Graph(nn.Module):
    """The exported computation: a network of one member, then its head's mean and quantiles."""

    def __init__(self, network: Forecaster, bins: Bins) -> None:
        super().__init__()
        self.edges: Tensor
        self.scale: Tensor
        self.network = network
        self.register_buffer("edges", torch.tensor(bins.edges, dtype=torch.float32))
        self.register_buffer("scale", network.observed_scaler[:, 0].clone())

    def forward(self, observed: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (windows, horizon) and quantiles (windows, horizon, levels), in the target's unit."""
        outputs = self.network(observed, known).squeeze(0)
        return forecast_of(outputs, self.network.shape.head, edges=self.edges, scale=self.scale)


def student_card(network: Forecaster, spec: DatasetSpec, *, trained_until: dt.datetime) -> dict[str, Any]:
    """What the exported student says of itself: its columns, its clock, its holidays, how far it has seen.

    Holidays are listed, so that no calendar library is needed where it runs; beyond the last listed year it refuses.
    """
    years = range(1990, trained_until.year + HOLIDAY_YEARS_AHEAD + 1)
    return {
        "dataset": spec.name,
        "target": spec.target,
        "unit": spec.target_column.unit,
        "lookback_hours": network.shape.lookback,
        "horizon_hours": network.shape.horizon,
        "observed": spec.names(Role.OBSERVED),
        "known_future": spec.names(Role.KNOWN_FUTURE),
        "timezone": spec.calendar.timezone,
        "holidays": public_holidays(spec.calendar, years),
        "holidays_until_year": years[-1] if spec.calendar.country else None,
        "quantile_levels": list(QUANTILE_LEVELS),
        "trained_until_utc": trained_until.isoformat(),
    }


def export_student(network: Forecaster, bins: Bins, card: dict[str, Any], folder: Path) -> None:
    """Write `student.onnx` and `student.json` into `folder`, whole or not at all.

    Raises ValueError where the network has privileged inputs or more than one member: that is no student.
    """
    if network.shape.privileged or network.members != 1:
        raise ValueError("only a network of one member without privileged inputs is a student")
    shape = network.shape
    graph = _Graph(network.cpu().eval(), bins).eval()
    example = (
        torch.zeros(2, shape.lookback, shape.observed),
        torch.zeros(2, shape.horizon, shape.known),
    )
    any_number = {"observed": {0: torch.export.Dim.DYNAMIC}, "known": {0: torch.export.Dim.DYNAMIC}}
    with folder_written_whole(folder) as part, warnings.catch_warnings():
        # torch's own exporter uses what torch itself has deprecated, and tells of a torchvision that nobody needs.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            graph,
            example,
            part / "student.onnx",
            input_names=["observed", "known"],
            output_names=["mean", "quantiles"],
            dynamic_shapes=any_number,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        write_json(part / "student.json", card)


@dataclass(frozen=True)
class Student:
    """An exported student: its session and its card."""

    session: onnxruntime.InferenceSession
    card: dict[str, Any]

    @property
    def trained_until(self) -> dt.datetime:
        """The end of all that it was trained or chosen on."""
        return dt.datetime.fromisoformat(self.card["trained_until_utc"])


def load_student(folder: Path) -> Student:
    """Read an exported student. It runs on one thread: a forecast is small, and the same input gives the same bits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        (folder / "student.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return Student(session, read_json(folder / "student.json"))


def forecast_windows(
    student: Student,
    observed: Float[np.ndarray, "windows lookback observed"],
    known: Float[np.ndarray, "windows horizon known"],
) -> Forecasts:
    """Forecast windows that are already cut."""
    mean, quantiles = student.session.run(
        None, {"observed": observed.astype(np.float32), "known": known.astype(np.float32)}
    )
    return Forecasts(mean.astype(np.float64), quantiles.astype(np.float64))


def student_window(
    readings: pl.DataFrame, spec: DatasetSpec, issue_time: dt.datetime, card: dict[str, Any]
) -> tuple[Float[np.ndarray, "lookback observed"], Float[np.ndarray, "horizon known"]]:
    """One series' raw readings as the student's inputs at an issue time (UTC, a full hour).

    Readings from the issue time on are cut off before anything is computed, known_future columns aside.

    Raises DataError where an hour of the lookback, or what must be known of an hour ahead, is null or missing.
    """
    lookback, horizon = card["lookback_hours"], card["horizon_hours"]
    issue = pl.lit(issue_time).dt.convert_time_zone("UTC")
    reach = dt.timedelta(hours=lookback) + (spec.quality.repeated.after if spec.quality.repeated else dt.timedelta(0))
    before = readings.filter((pl.col("time_utc") < issue) & (pl.col("time_utc") >= issue - reach))
    hours = hourly_table(clean(before, spec), spec) if before.height else before
    past = hours.filter(pl.col("time_utc") >= issue - dt.timedelta(hours=lookback)).select(card["observed"])
    if past.height != lookback or past.null_count().sum_horizontal().item():
        full = past.drop_nulls().height
        raise DataError(f"at {issue_time:%Y-%m-%d %H:%M} UTC only {full} of {lookback} past hours can be used")
    ahead = pl.datetime_range(issue_time, issue_time + dt.timedelta(hours=horizon - 1), "1h", eager=True)
    known = [calendar_features(ahead, spec.calendar).to_numpy()]
    if card["known_future"]:
        end = issue + dt.timedelta(hours=horizon)
        later = readings.filter((pl.col("time_utc") >= issue) & (pl.col("time_utc") < end))
        hidden = [pl.lit(None, pl.Float64).alias(n) for n in spec.names() if n not in card["known_future"]]
        hours = hourly_table(clean(later.with_columns(hidden), spec), spec) if later.height else later
        planned = hours.select(card["known_future"]).drop_nulls()
        if planned.height != horizon:
            raise DataError(
                f"at {issue_time:%Y-%m-%d %H:%M} UTC {', '.join(card['known_future'])} is known of only "
                f"{planned.height} of {horizon} hours ahead"
            )
        known.append(planned.to_numpy())
    return past.to_numpy(), np.concatenate(known, axis=1)


def forecast_readings(
    student: Student, readings: pl.DataFrame, spec: DatasetSpec, issue_times: list[dt.datetime]
) -> Forecasts:
    """From one series' raw readings to forecasts: the way that production takes, and that the leak guard watches.

    Each window is forecast on its own: in a batch, the last bits would depend on how many others are in it.
    """
    one_by_one = []
    for time in issue_times:
        observed, known = student_window(readings, spec, time, student.card)
        one_by_one.append(forecast_windows(student, observed[None], known[None]))
    return Forecasts(
        np.concatenate([forecast.mean for forecast in one_by_one]),
        np.concatenate([forecast.quantiles for forecast in one_by_one]),
    )
