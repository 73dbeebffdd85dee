"""The registered model: MLflow stores this file next to the ONNX graph and runs it wherever the model is loaded.

It needs only mlflow, onnxruntime and their dependencies. One call takes the values of one or more series by step, which
is an hour or what `step_minutes` in the card says, and returns the forecast of each, starting after its last row:

    series_id  time_utc             <observed columns>
    home       2010-11-19 21:00:00  1.42                 the lookback's first step
    ...
    home       2010-11-26 20:00:00  0.93                 its last

Values may be missing (null) only before the last `complete_hours` of the lookback, and these rows may be left out.

Where the student has columns that are known ahead of time, they need the rows of `horizon_hours`, too, in which the
observed columns are null.
"""

import datetime as dt
import json
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelConfig, set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel
from pydantic import BaseModel, create_model

CONFIG = ModelConfig(development_config={"observed": ["value"], "known_future": []})
OBSERVED: list[str] = list(CONFIG.get("observed"))
KNOWN_FUTURE: list[str] = list(CONFIG.get("known_future"))
HOUR, MINUTE = pd.Timedelta(hours=1), pd.Timedelta(minutes=1)
COLUMNS = ["series_id", "time_utc", *OBSERVED, *KNOWN_FUTURE]


class _Row(BaseModel):
    """A row without validation: MLflow reads the signature from the fields, and `predict` checks the whole table.

    With a plain signature MLflow would drop unknown columns before the model sees them. This way they arrive, and
    `predict` can report what is wrong in its own words.
    """

    def __init__(self, **data: Any) -> None:
        object.__setattr__(self, "__dict__", data)
        object.__setattr__(self, "__pydantic_fields_set__", set(data))
        object.__setattr__(self, "__pydantic_extra__", None)
        object.__setattr__(self, "__pydantic_private__", None)


VALUES: dict[str, Any] = dict.fromkeys([*OBSERVED, *KNOWN_FUTURE], (float, ...))
HourlyRow = create_model(
    "HourlyRow",
    __base__=_Row,
    series_id=(str, ...),
    time_utc=(dt.datetime, ...),
    **VALUES,
)


def _refuse(sentence: str) -> MlflowException:
    return MlflowException(sentence, error_code=INVALID_PARAMETER_VALUE)


def _table(rows: list[Any]) -> pd.DataFrame:
    """The rows as a table with exactly these columns in this order. Raises MlflowException naming what is wrong."""
    if not rows:
        raise _refuse("the input has no rows")
    names = list(dict.fromkeys(name for row in rows for name in vars(row)))
    missing = [name for name in COLUMNS if name not in names]
    extra = [name for name in names if name not in COLUMNS]
    if missing:
        raise _refuse(f"column {', '.join(missing)} is missing; expected {', '.join(COLUMNS)}")
    if extra:
        raise _refuse(f"column {', '.join(extra)} is unknown; expected only {', '.join(COLUMNS)}")
    if names != COLUMNS:
        raise _refuse(f"the columns are in the order {', '.join(names)}; expected {', '.join(COLUMNS)}")
    table = pd.DataFrame([{name: getattr(row, name, None) for name in COLUMNS} for row in rows], columns=COLUMNS)
    if table["series_id"].isna().any():
        raise _refuse(f"column series_id is null in row {int(table['series_id'].isna().argmax()) + 1}")
    if any(isinstance(time, int | float | np.number) for time in table["time_utc"].dropna()):
        raise _refuse("column time_utc holds a number; expected times such as 2024-07-01T12:00:00")
    try:
        table["time_utc"] = pd.to_datetime(table["time_utc"], utc=True).astype("datetime64[ns, UTC]")
    except (ValueError, TypeError) as error:
        raise _refuse(f"column time_utc holds a value that is not a time: {error}") from None
    for name in COLUMNS[2:]:
        try:
            table[name] = pd.to_numeric(table[name]).astype("float64")
        except (ValueError, TypeError):
            raise _refuse(f"column {name} holds a value that is not a number") from None
    return table


def _spread(past: np.ndarray, default: float) -> float:
    """How much a series varies that training did not hold, as `tutelage.data.sizes` says."""
    there = past[np.isfinite(past)]
    spread, level = (float(there.std()), float(np.abs(there).mean())) if len(there) else (0.0, 0.0)
    return (spread if spread > 1e-6 * level else level) or default


class Forecaster(PythonModel):
    """The student as an MLflow model."""

    def load_context(self, context: Any) -> None:
        """Load the graph and the card."""
        folder = Path(context.artifacts["student"])
        self.card = json.loads((folder / "student.json").read_text(encoding="utf-8"))
        self.step = pd.Timedelta(minutes=self.card.get("step_minutes", 60))
        hours = self.step / HOUR
        self.step_hours = int(hours) if hours >= 1 else hours
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        graph = (folder / "student.onnx").read_bytes()
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def predict(  # type: ignore[override]  # MLflow allows to omit `context`
        self, model_input: list[HourlyRow], params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Forecast each series from the step after its last observed one.

        Returns one row per series and target step: series_id, issue_time_utc, time_utc, lead_hours, mean, q01 … q99,
        in the target's unit. Raises MlflowException with a sentence where the input is invalid.
        """
        return self.forecast(_table(model_input))

    def forecast(self, table: pd.DataFrame) -> pd.DataFrame:
        """The same from a table with the model's columns and their types: many series in a fraction of the time.

        MLflow makes an object of each row that it gives to `predict`.
        """
        return self._forecast(table, ["mean", "quantiles"])[0]

    def forecast_members(self, table: pd.DataFrame) -> tuple[pd.DataFrame, list[dict[str, np.ndarray]]]:
        """The forecast, and for each series in its order what it is the average of.

        member_means (members, horizon) and member_quantiles (members, horizon, levels) are in the target's unit and in
        the order of the card's `shares`; scale: of several series the graph sees each in units of its size, in which
        the card's `atom` is, too.
        """
        return self._forecast(table, ["mean", "quantiles", "member_means", "member_quantiles"])

    def _forecast(self, table: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, list[dict[str, np.ndarray]]]:
        """The forecast, and for each series these outputs of the graph."""
        windows = [self._window(str(name), part) for name, part in table.groupby("series_id", sort=False)]
        # One at a time: in a batch, the last bits of a forecast would depend on the number of series.
        outputs = [self._run(name, seen, known, names) for name, seen, known, _ in windows]
        head = {
            "series_id": [name for name, _, _, ahead in windows for _ in ahead],
            "issue_time_utc": windows[0][3][:0].append([ahead[:1].repeat(len(ahead)) for *_, ahead in windows]),
            "time_utc": windows[0][3][:0].append([ahead for *_, ahead in windows]),
            "lead_hours": [lead * self.step_hours for *_, ahead in windows for lead in range(1, len(ahead) + 1)],
            "mean": np.concatenate([output["mean"] for output in outputs]),
        }
        levels = [f"q{round(level * 100):02d}" for level in self.card["quantile_levels"]]
        quantiles = pd.DataFrame(np.concatenate([output["quantiles"] for output in outputs]), columns=levels)
        return pd.concat([pd.DataFrame(head), quantiles], axis=1), outputs

    def _run(self, name: str, observed: np.ndarray, known: np.ndarray, outputs: list[str]) -> dict[str, np.ndarray]:
        """These outputs of the graph for one window. That of several series sees each in units of its size, `scale`."""
        sizes = self.card.get("sizes")
        if sizes is None:
            inputs = {"observed": observed.astype(np.float32)[None], "known": known.astype(np.float32)[None]}
            values = self.session.run(outputs, inputs)
            return {key: value[0] for key, value in zip(outputs, values, strict=True)} | {"scale": np.array(1.0)}
        size = sizes["of_series"].get(name) or _spread(observed[:, 0], sizes["spread"]) / sizes["spread"]
        divided = []
        for values, names in ((observed, self.card["observed"]), (known, self.card["known_future"])):
            values = values.copy()
            for place, column in enumerate(names, start=values.shape[1] - len(names)):
                if column in sizes["columns"]:
                    values[:, place] *= 1 / size
            divided.append(values.astype(np.float32)[None])
        values = self.session.run(outputs, dict(zip(("observed", "known"), divided, strict=True)))
        scaled = {key: value[0].astype(np.float64) * size for key, value in zip(outputs, values, strict=True)}
        return scaled | {"scale": np.array(size)}

    def _window(self, name: str, part: pd.DataFrame) -> tuple[str, np.ndarray, np.ndarray, pd.DatetimeIndex]:
        """One series' rows as (name, observed, known, target steps). Raises MlflowException naming row and rule."""
        hours = (self.card["lookback_hours"], self.card["horizon_hours"])
        lookback, horizon = (each * HOUR // self.step for each in hours)
        complete = self.card.get("complete_hours", hours[0]) * HOUR // self.step
        ahead_rows, hourly = horizon if KNOWN_FUTURE else 0, self.step == HOUR
        minutes = f"{self.step // MINUTE} minutes"
        times = pd.DatetimeIndex(part["time_utc"]).as_unit("ns")
        if times.isna().any():
            raise _refuse(f"series {name}: column time_utc is null in row {int(times.isna().argmax()) + 1}")
        wrong = np.flatnonzero(np.diff(times.asi8) != self.step.value)
        if len(wrong):
            at, before = times[wrong[0] + 1], times[wrong[0]]
            raise _refuse(
                f"series {name}: {at:%Y-%m-%d %H:%M} follows {before:%Y-%m-%d %H:%M}; each row must be "
                f"{'one hour' if hourly else minutes} after the row before it"
            )
        past = len(part) - ahead_rows
        if not complete <= past <= lookback:
            fewest = "" if complete == lookback else f"{complete + ahead_rows} to "
            needed = f"{fewest}{lookback + ahead_rows} consecutive {'hours' if hourly else 'rows'} are needed"
            raise _refuse(f"series {name}: {len(part)} rows, but {needed}")
        begin = pd.Timedelta(minutes=self.card.get("begin_minute", 0))
        if (times != (times - begin).floor(self.step) + begin).any():
            first = self.card.get("begin_minute", 0)
            begins = f", which begins at :{first:02d} UTC" if begin else ""
            midnight = f"{first // 60:02d}:{first % 60:02d} UTC"
            full = f"is not a full hour{begins}" if hourly else f"begins no step of {minutes} from {midnight} on"
            raise _refuse(f"series {name}: {times[0]:%Y-%m-%d %H:%M:%S} {full}")
        for columns, rows in ((OBSERVED, part.iloc[past - complete : past]), (KNOWN_FUTURE, part.iloc[past:])):
            for column in columns:
                bad = ~np.isfinite(rows[column].to_numpy())
                if bad.any():
                    when = rows["time_utc"].iloc[int(bad.argmax())]
                    raise _refuse(
                        f"series {name}: column {column} is null at {when:%Y-%m-%d %H:%M}; no value may be null"
                        + ("" if complete == lookback else f" in the last {complete} {'hours' if hourly else 'rows'}")
                    )
        self._require_ranges(name, part)
        ahead = pd.date_range(times[past - 1] + self.step, periods=horizon, freq=self.step)
        local = ahead.tz_convert(zoneinfo.ZoneInfo(self.card["timezone"]))
        last_year = self.card["holidays_until_year"]
        if last_year is not None and int(local[-1].year) > last_year:
            raise _refuse(f"series {name}: the model's public holidays end with {last_year}; retrain it")
        free = set(self.card["holidays"])
        calendar = np.stack(
            [local.hour + local.minute / 60, local.day_of_week, [day.isoformat() in free for day in local.date]], axis=1
        ).astype(np.float64)
        known = part[KNOWN_FUTURE].iloc[past:].to_numpy(dtype=np.float64) if KNOWN_FUTURE else calendar[:, :0]
        observed = np.full((lookback, len(OBSERVED)), np.nan)
        observed[lookback - past :] = part[OBSERVED].iloc[:past].to_numpy(dtype=np.float64)
        return name, observed, np.concatenate([calendar, known], axis=1), ahead

    def _require_ranges(self, name: str, part: pd.DataFrame) -> None:
        """Raise MlflowException where a value is outside what the spec allows: training has such readings masked."""
        for column, (least, largest) in self.card.get("ranges", {}).items():
            values, rounding = part[column].to_numpy(), 1e-6 * (largest - least)
            outside = (values < least - rounding) | (values > largest + rounding)
            if outside.any():
                row = part.iloc[int(outside.argmax())]
                raise _refuse(
                    f"series {name}: column {column} is {row[column]:g} at {row['time_utc']:%Y-%m-%d %H:%M}; its spec "
                    f"allows {least:g} to {largest:g}"
                )


set_model(Forecaster())
