"""Inference with an exported student: `load_student` reads it with onnxruntime, `forecast_windows` runs it.

`forecast_readings` starts from raw readings. None of this needs torch.
"""

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
from jaxtyping import Float

from tutelage.data.calendar import calendar_features
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.grid import HOUR, MINUTE, Grid
from tutelage.data.inputs import LONGEST_HOURS, fill_gaps, steps_before
from tutelage.data.sizes import Sizes, sizes_from
from tutelage.errors import DataError
from tutelage.files import read_json
from tutelage.forecasts import Forecasts

CARD = "student.json"
GRAPH = "student.onnx"
"""The two files of an exported student."""
AVERAGE = ["mean", "quantiles"]
"""The graph's outputs that are the forecast; the others are what it is the average of."""
CHUNK_WINDOWS = 16
"""Windows per call of the graph: larger batches are no faster, and leave cores without work."""


@dataclass(frozen=True)
class Student:
    """An exported student: its session and its card."""

    session: onnxruntime.InferenceSession
    card: dict[str, Any]

    @property
    def complete_hours(self) -> int:
        """How many of the past hours, the last ones, must have a value; all of them where the card is older."""
        return int(self.card.get("complete_hours", self.card["lookback_hours"]))

    @property
    def grid(self) -> Grid:
        """The steps of its past and of its horizon."""
        return grid_of(self.card)

    @property
    def sizes(self) -> Sizes | None:
        """The sizes of the series that it was trained on; None: there was one series."""
        return sizes_from(self.card)

    @property
    def trained_until(self) -> dt.datetime:
        """The end of the data that it was trained or chosen on."""
        return dt.datetime.fromisoformat(self.card["trained_until_utc"])


def grid_of(card: Mapping[str, Any]) -> Grid:
    """The steps of a student by its card; hours where the card is older."""
    return Grid(card.get("step_minutes", 60) * MINUTE, card.get("begin_minute", 0))


def plain_grid(grid: Grid) -> dict[str, int]:
    """A student's steps as its card has them."""
    return {"step_minutes": grid.step // MINUTE, "begin_minute": grid.begin_minute}


def differences(card: Mapping[str, Any], spec: DatasetSpec, *, horizon_hours: int) -> list[str]:
    """In what a student, by its card, is no student of a spec: sentences such as 'its timezone is UTC, not Asia/Tokyo'.

    A registered model that differs can't teach this dataset's students, nor be compared with them.
    """
    wanted = {
        "target": spec.target,
        "observed": spec.names(Role.OBSERVED),
        "known_future": spec.names(Role.KNOWN_FUTURE),
        "timezone": spec.calendar.timezone,
        "horizon_hours": horizon_hours,
    }
    faults = [f"its {name} is {card[name]}, not {value}" for name, value in wanted.items() if card[name] != value]
    steps = grid_of(card)
    if steps != spec.grid:
        begins = "" if steps.step != spec.grid.step else f" from minute {steps.begin_minute} of the day on"
        of_spec = "" if not begins else f" from minute {spec.grid.begin_minute} on"
        faults.append(f"its student_step is {steps.name}{begins}, not {spec.grid.name}{of_spec}")
    return faults


def load_student(folder: Path) -> Student:
    """Read an exported student. It runs on one thread, so that the same input always gives the same bits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession((folder / GRAPH).read_bytes(), options, providers=["CPUExecutionProvider"])
    return Student(session, read_json(folder / CARD))


def forecast_windows(
    student: Student,
    observed: Float[np.ndarray, "windows lookback observed"],
    known: Float[np.ndarray, "windows horizon known"],
    names: Sequence[str] = (),
) -> Forecasts:
    """Forecast windows, a long test part in chunks.

    names: each window's series; without them, a student of several series takes each window's size from its past
    """
    sizes = student.sizes
    if sizes is not None:
        every = zip(names or [""] * len(observed), observed[..., 0], strict=True)
        size = np.array([sizes.of(name, past) for name, past in every])
        observed = sizes.times(observed, student.card["observed"], 1 / size)
        known = sizes.times(known, student.card["known_future"], 1 / size)
        forecasts = _forecast(student, observed, known)
        return Forecasts(forecasts.mean * size[:, None], forecasts.quantiles * size[:, None, None])
    return _forecast(student, observed, known)


def _forecast(student: Student, observed: np.ndarray, known: np.ndarray) -> Forecasts:
    """The graph's forecasts, in chunks that run side by side, each on one thread."""

    def run(start: int) -> list[np.ndarray]:
        chunk = slice(start, start + CHUNK_WINDOWS)
        inputs = {"observed": observed[chunk].astype(np.float32), "known": known[chunk].astype(np.float32)}
        return [output.astype(np.float64) for output in student.session.run(AVERAGE, inputs)]

    starts = range(0, max(len(observed), 1), CHUNK_WINDOWS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        means, quantiles = zip(*pool.map(run, starts), strict=True)
    return Forecasts(np.concatenate(means), np.concatenate(quantiles))


def student_window(
    readings: pl.DataFrame, spec: DatasetSpec, issue_time: dt.datetime, card: dict[str, Any]
) -> tuple[Float[np.ndarray, "lookback observed"], Float[np.ndarray, "horizon known"]]:
    """One series' raw readings as the student's inputs at an issue time (UTC, the start of a step).

    Readings from the issue time on are cut off before anything is computed, except known_future columns. Missing steps
    are filled by the spec's rule, as in training and in a forecast.

    Raises DataError where more steps of the lookback are missing, or a known_future value of the horizon is.
    """
    grid, horizon_hours = grid_of(card), card["horizon_hours"]
    complete_hours = card.get("complete_hours", card["lookback_hours"])
    lookback, complete, horizon = map(grid.steps, (card["lookback_hours"], complete_hours, horizon_hours))
    names, issue = card["observed"], issue_time.astimezone(dt.UTC)
    # A gap may be filled from earlier days.
    before = readings.filter(pl.col("time_utc") < issue)
    every = steps_before(before, spec, issue, card["lookback_hours"] + LONGEST_HOURS)
    filled = fill_gaps(every, spec, names, since=issue - complete_hours * HOUR)
    full = every.tail(complete).drop_nulls(names).height
    if filled.tail(complete).drop_nulls(names).height != complete or (complete - full) * grid.step > (
        spec.serving.at_most_hours * HOUR
    ):
        raise DataError(
            f"at {issue_time:%Y-%m-%d %H:%M} UTC {full} of {complete} past {grid.plural} can be used, and the others "
            f"can't be filled by rule {spec.serving.missing_hours} (at most {spec.serving.at_most_hours} h)"
        )
    past = filled.tail(lookback).select(names)
    ahead = pl.datetime_range(issue_time, issue_time + horizon_hours * HOUR, grid.step, closed="left", eager=True)
    known = [calendar_features(ahead, spec.calendar).to_numpy()]
    if card["known_future"]:
        end = issue + horizon_hours * HOUR
        later = readings.filter((pl.col("time_utc") >= issue) & (pl.col("time_utc") < end))
        hidden = [pl.lit(None, pl.Float64).alias(n) for n in spec.names() if n not in card["known_future"]]
        hours = steps_before(later.with_columns(hidden), spec, end, horizon_hours)
        planned = hours.select(card["known_future"]).drop_nulls()
        if planned.height != horizon:
            raise DataError(
                f"at {issue_time:%Y-%m-%d %H:%M} UTC {', '.join(card['known_future'])} is known of only "
                f"{planned.height} of {horizon} {grid.plural} ahead"
            )
        known.append(planned.to_numpy())
    return past.cast(pl.Float64).fill_null(float("nan")).to_numpy(), np.concatenate(known, axis=1)


def forecast_readings(
    student: Student, readings: pl.DataFrame, spec: DatasetSpec, issue_times: list[dt.datetime]
) -> Forecasts:
    """From one series' raw readings to forecasts: the path that production takes, and that the leak check verifies.

    Each window is forecast separately: in a batch, the last bits would depend on the batch's size.
    """
    one_by_one = []
    for time in issue_times:
        observed, known = student_window(readings, spec, time, student.card)
        one_by_one.append(forecast_windows(student, observed[None], known[None], [readings["series_id"][0]]))
    return Forecasts(
        np.concatenate([forecast.mean for forecast in one_by_one]),
        np.concatenate([forecast.quantiles for forecast in one_by_one]),
    )
