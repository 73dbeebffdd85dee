import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import polars as pl
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from tasks.retrain.register import write_model
from tests.tutelage.data.builders import export_untrained, meter, meter_with_plan
from tutelage.data.calendar import calendar_features
from tutelage.data.dataset import DatasetSpec
from tutelage.model.inference import forecast_windows, load_student

LOOKBACK, HORIZON = 24, 24
SPEC, PLANNED = meter(), meter_with_plan()
ISSUE = pd.Timestamp("2024-07-02 12:00")


def hours(series_id: str = "meter", *, issue: pd.Timestamp = ISSUE, seed: int = 0) -> pd.DataFrame:
    """A window of hourly values up to an issue time, as the model takes it."""
    noise = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "series_id": series_id,
            "time_utc": pd.date_range(end=issue, periods=LOOKBACK + 1, freq="h")[:-1],
            "power_kw": noise.uniform(0, 15, LOOKBACK),
            "indoor_c": noise.uniform(10, 30, LOOKBACK),
        }
    )


def save_model(spec: DatasetSpec, example: pd.DataFrame, folder: Path) -> tuple[Path, Path]:
    """Export an untrained student and save it as the register stage does: (model, export)."""
    export = folder / "export"
    export_untrained(spec, export, lookback=LOOKBACK, horizon=HORIZON)
    example = example.assign(time_utc=example["time_utc"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    write_model(folder / "model", export, example)
    return folder / "model", export


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_model(SPEC, hours(), tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def model(saved: tuple[Path, Path]) -> PyFuncModel:
    return mlflow.pyfunc.load_model(str(saved[0]))


def by_the_core(
    export: Path, table: pd.DataFrame, spec: DatasetSpec, planned: np.ndarray | None = None, names: Sequence[str] = ()
) -> np.ndarray:
    """The forecast of the core for the same window: the mean, then the quantiles."""
    issue = table["time_utc"].iloc[LOOKBACK - 1] + pd.Timedelta(hours=1)
    ahead = pl.Series([issue + pd.Timedelta(hours=h) for h in range(HORIZON)], dtype=pl.Datetime("us", "UTC"))
    known = calendar_features(ahead, spec.calendar).to_numpy()
    if planned is not None:
        known = np.column_stack([known, planned])
    observed = table[["power_kw", "indoor_c"]].iloc[:LOOKBACK].to_numpy()
    forecasts = forecast_windows(load_student(export), observed[None], known[None].astype(np.float32), names)
    return np.column_stack([forecasts.mean[0], forecasts.quantiles[0]])


@pytest.mark.parametrize(
    ("issue", "holidays"),
    [
        ("2023-07-13 20:00", 22),  # Friday 14 July, on the Paris clock from 22:00 UTC
        ("2023-07-14 22:00", 0),  # the Saturday after it
        ("2023-07-12 22:00", 0),  # the Thursday before it
        ("2024-03-30 12:00", 0),  # Paris goes to summer time
    ],
)
def test_predict__is_the_cores_forecast(
    issue: str, holidays: int, saved: tuple[Path, Path], model: PyFuncModel
) -> None:
    table = hours(issue=pd.Timestamp(issue))
    found = model.predict(table)
    ahead = pl.Series(found["time_utc"].to_list(), dtype=pl.Datetime("us", "UTC"))
    assert calendar_features(ahead, SPEC.calendar)["holiday"].sum() == holidays
    assert list(found)[:6] == ["series_id", "issue_time_utc", "time_utc", "lead_hours", "mean", "q01"]
    assert found["lead_hours"].tolist() == list(range(1, HORIZON + 1))
    assert found["time_utc"].iloc[0] == found["issue_time_utc"].iloc[0] == pd.Timestamp(issue, tz="UTC")
    np.testing.assert_allclose(found.iloc[:, 4:], by_the_core(saved[1], table, SPEC), rtol=1e-6)


def test_predict__answers_to_holiday_and_weekend(model: PyFuncModel) -> None:
    means = [model.predict(hours(issue=pd.Timestamp(f"2023-07-{day} 22:00")))["mean"] for day in (12, 13, 14)]
    assert np.abs(means[0] - means[1]).max() > 1e-3
    assert np.abs(means[1] - means[2]).max() > 1e-3


def test_predict__each_series_by_itself(model: PyFuncModel) -> None:
    first, second = hours("first"), hours("second", issue=ISSUE + pd.Timedelta(days=9), seed=1)
    mixed = pd.concat([first, second]).sort_values("time_utc", kind="stable")
    together = model.predict(mixed)
    alone = pd.concat([model.predict(first), model.predict(second)], ignore_index=True)
    assert together["series_id"].tolist() == ["first"] * HORIZON + ["second"] * HORIZON
    pd.testing.assert_frame_equal(together, alone, check_exact=True)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_predict__takes_naive_times_as_utc_and_aware_ones_as_they_are(zone: str, model: PyFuncModel) -> None:
    aware = hours().assign(time_utc=lambda table: table["time_utc"].dt.tz_localize("UTC").dt.tz_convert(zone))
    pd.testing.assert_frame_equal(model.predict(aware), model.predict(hours()))


def test_predict__takes_records_as_it_takes_a_table(model: PyFuncModel) -> None:
    records = hours().assign(time_utc=lambda table: table["time_utc"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    pd.testing.assert_frame_equal(model.predict(records.to_dict("records")), model.predict(hours()))


def test_forecast__of_a_table_is_what_predict_says_of_its_rows(model: PyFuncModel) -> None:
    table = pd.concat([hours("a", seed=1), hours("b", seed=2)])
    typed = table.assign(time_utc=table["time_utc"].dt.tz_localize("UTC"))
    pd.testing.assert_frame_equal(model.unwrap_python_model().forecast(typed), model.predict(table))


def at(row: int, **values: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The table with other values in one row."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype(dict.fromkeys(values, object))
        for column, value in values.items():
            table.loc[row, column] = value
        return table

    return change


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "missing column": (
        lambda t: t.drop(columns="indoor_c"),
        "column indoor_c is missing; expected series_id, time_utc, power_kw, indoor_c",
    ),
    "extra column": (
        lambda t: t.assign(volts=230.0),
        "column volts is unknown; expected only series_id, time_utc, power_kw, indoor_c",
    ),
    "other order": (
        lambda t: t[["series_id", "time_utc", "indoor_c", "power_kw"]],
        "the columns are in the order series_id, time_utc, indoor_c, power_kw; expected series_id, time_utc, power",
    ),
    "null value": (at(3, power_kw=None), "series meter: column power_kw is null at 2024-07-01 15:00; no value may be"),
    "infinite value": (at(3, indoor_c=np.inf), "series meter: column indoor_c is null at 2024-07-01 15:00"),
    "far out of range": (
        at(3, power_kw=1500.0),
        "series meter: column power_kw is 1500 at 2024-07-01 15:00; its spec allows 0 to 15",
    ),
    "below its range": (at(3, indoor_c=-300.0), "column indoor_c is -300 at 2024-07-01 15:00; its spec allows -10 to"),
    "epoch times": (
        lambda t: t.assign(time_utc=t["time_utc"].astype("int64")),
        "column time_utc holds a number; expected times such as 2024-07-01T12:00:00",
    ),
    "text": (at(3, power_kw="many"), "column power_kw holds a value that is not a number"),
    "null time": (at(3, time_utc=None), "series meter: column time_utc is null in row 4"),
    "text as time": (at(3, time_utc="noon"), "column time_utc holds a value that is not a time"),
    "null series": (at(3, series_id=None), "column series_id is null in row 4"),
    "out of order": (lambda t: t.iloc[[1, 0, *range(2, 24)]], "2024-07-01 12:00 follows 2024-07-01 13:00; each row"),
    "gap": (lambda t: t.drop(5), "2024-07-01 18:00 follows 2024-07-01 16:00; each row must be one hour after"),
    "hour twice": (lambda t: t.iloc[[0, 0, *range(2, 24)]], "2024-07-01 12:00 follows 2024-07-01 12:00"),
    "too few rows": (lambda t: t.iloc[1:], "series meter: 23 rows, but 24 consecutive hours are needed"),
    "too many rows": (
        lambda t: hours(issue=t["time_utc"].iloc[0]).pipe(lambda before: pd.concat([before, t])),
        "series meter: 48 rows, but 24 consecutive hours are needed",
    ),
    "off the hour": (
        lambda t: t.assign(time_utc=t["time_utc"] + pd.Timedelta(minutes=30)),
        "series meter: 2024-07-01 12:30:00 is not a full hour",
    ),
    "beyond the holidays": (
        lambda t: hours(issue=pd.Timestamp("2035-01-01")),
        "the model's public holidays end with 2034; retrain it",
    ),
    "no rows": (lambda t: t.iloc[:0], "the input has no rows"),
}


@pytest.mark.parametrize(("change", "sentence"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.bad_input
def test_predict__refuses_with_a_sentence(
    change: Callable[[pd.DataFrame], pd.DataFrame], sentence: str, model: PyFuncModel
) -> None:
    with pytest.raises(MlflowException, match=sentence):
        model.predict(change(hours()))


@pytest.mark.parametrize("kind", ["int64", "Int64", "Float32", "int8", "object"])
def test_predict__takes_numbers_of_any_kind(kind: str, model: PyFuncModel) -> None:
    whole = hours().round({"power_kw": 0})
    answer = model.predict(whole.assign(power_kw=whole["power_kw"].astype(kind)))
    pd.testing.assert_frame_equal(answer, model.predict(whole))


def test_predict__takes_the_rows_of_a_csv_file(model: PyFuncModel) -> None:
    table = hours().round({"power_kw": 3, "indoor_c": 3})
    read = pd.read_csv(StringIO(table.to_csv(index=False)))
    pd.testing.assert_frame_equal(model.predict(read), model.predict(table))


def test_predict__hours_begin_with_those_of_the_clock_that_wrote_the_data(tmp_path: Path) -> None:
    half_past = ISSUE + pd.Timedelta(minutes=30)
    spec = meter(timestamp={"columns": ["time"], "timezone": "Asia/Kolkata"})
    path, _ = save_model(spec, hours(issue=half_past), tmp_path)
    model = mlflow.pyfunc.load_model(str(path))
    assert model.predict(hours(issue=half_past))["time_utc"].iloc[0] == half_past.tz_localize("UTC")
    with pytest.raises(MlflowException, match=r"2024-07-01 12:00:00 is not a full hour, which begins at :30 UTC"):
        model.predict(hours())


def test_predict__takes_what_is_known_ahead(tmp_path: Path) -> None:
    planned = np.linspace(15, 25, HORIZON)
    past = hours().assign(planned_c=18.0)
    future = hours(issue=ISSUE + pd.Timedelta(hours=HORIZON)).assign(power_kw=None, indoor_c=None, planned_c=planned)
    table = pd.concat([past, future.astype(past.dtypes)], ignore_index=True)
    path, export = save_model(PLANNED, table.fillna(0.0), tmp_path)
    model = mlflow.pyfunc.load_model(str(path))
    expected = by_the_core(export, table, PLANNED, planned)
    np.testing.assert_allclose(model.predict(table).iloc[:, 4:], expected, rtol=1e-6)
    with pytest.raises(MlflowException, match="column planned_c is null at 2024-07-02 13:00"):
        model.predict(at(LOOKBACK + 1, planned_c=None)(table))
    with pytest.raises(MlflowException, match="24 rows, but 48 consecutive hours are needed"):
        model.predict(past)


@pytest.mark.parametrize("name", ["large", "new"])
def test_predict__of_several_series_gives_each_its_size(name: str, tmp_path: Path) -> None:
    past = hours().assign(planned_c=18.0)
    table = pd.concat([past, past.assign(time_utc=past["time_utc"] + pd.Timedelta(hours=HORIZON))], ignore_index=True)
    export_untrained(PLANNED, tmp_path / "export", lookback=LOOKBACK, horizon=HORIZON)
    sizes = {"of_series": {"large": 8.0}, "spread": 2.0, "columns": ["power_kw", "planned_c"]}
    card = tmp_path / "export" / "student.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sizes": sizes}))
    example = table.assign(time_utc=table["time_utc"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    write_model(tmp_path / "model", tmp_path / "export", example)
    asked = table.assign(series_id=name)
    asked.loc[LOOKBACK:, ["power_kw", "indoor_c"]] = np.nan
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(asked).iloc[:, 4:]
    planned = table["planned_c"].iloc[LOOKBACK:].to_numpy()
    expected = by_the_core(tmp_path / "export", asked, PLANNED, planned, [name])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    unsized = by_the_core(tmp_path / "export", asked, PLANNED, planned, ["other"])
    assert (np.abs(expected - unsized).max() > 1e-3) == (name == "large")


ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "prefect", "tutelage", "schemas", "tasks", "flows", "polars", "pandera"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())
import mlflow, pandas
table = pandas.read_json(sys.argv[2], orient="table")
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(table)["mean"].to_json(orient="values", double_precision=15))
"""


def test_model__loads_and_predicts_with_mlflow_and_onnxruntime_alone(
    saved: tuple[Path, Path], model: PyFuncModel, tmp_path: Path
) -> None:
    hours().to_json(tmp_path / "hours.json", orient="table", index=False, double_precision=15)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(saved[0]), str(tmp_path / "hours.json")],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), model.predict(hours())["mean"], rtol=1e-6)
