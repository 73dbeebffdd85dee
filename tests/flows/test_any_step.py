"""Forecasters of quarter hours and of days, from raw readings to the monitor."""

import datetime as dt
import itertools
import json
from pathlib import Path

import mlflow
import polars as pl
import pytest

from flows.forecast import forecast
from flows.monitor import monitor
from flows.retrain import retrain
from flows.rollback import rollback
from runtime.paths import datasets_folder
from runtime.registry import exported_in
from schemas.forecast import ForecastParameters
from schemas.monitor import MonitorParameters
from schemas.promotion import RollbackParameters
from schemas.verdict import Verdict
from tests.flows.test_retrain import SMALL, small
from tests.household import write_slice
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.readings import read_readings
from tutelage.data.source import source_files
from tutelage.errors import RegistryError, SpecError
from tutelage.model.inference import forecast_readings, load_student

pytestmark = pytest.mark.usefixtures("prefect_server")

BASED = SMALL.override({"student.base": "simple"})
AS_OF = dt.datetime(2010, 7, 28, 9, 37, tzinfo=dt.UTC)
QUARTER, DAY = dt.timedelta(minutes=15), dt.timedelta(days=1)
ON_ITS_CLOCK = dt.timedelta(hours=23)  # midnight on the household's clock, an hour ahead of UTC


def champion_of(verdict: Verdict) -> str:
    rollback(RollbackParameters(name=verdict.task, version=1, by="ada", why="the tests need a champion"))
    return verdict.task


@pytest.fixture(scope="module")
def quarters(prefect_server: None) -> str:
    name = write_slice(datasets_folder(), name="quarter-slice", days=40, student_step="PT15M")
    assert champion_of(retrain(small(name, recipe=BASED, history_days=12, test_days=7))) == "quarter-slice-1h"
    return name


@pytest.fixture(scope="module")
def days(prefect_server: None) -> str:
    name = write_slice(datasets_folder(), name="day-slice", days=225, student_step="P1D")
    parameters = {"horizon_hours": 48, "lookback_hours": 168, "history_days": 180, "test_days": 40}
    assert champion_of(retrain(small(name, recipe=BASED, **parameters))) == "day-slice-48h"
    return name


def student_of(task: str) -> Path:
    return exported_in(Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{task}@champion")))


@pytest.mark.parametrize(
    ("dataset", "hours", "issued", "step"),
    [
        ("quarters", 1, dt.datetime(2010, 7, 28, 9, 30, tzinfo=dt.UTC), QUARTER),
        ("days", 48, dt.datetime(2010, 7, 27, 23, tzinfo=dt.UTC), DAY),
    ],
)
def test_forecast__is_issued_at_a_step_and_is_what_the_core_says(
    dataset: str, hours: int, issued: dt.datetime, step: dt.timedelta, request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue(dataset)
    made = forecast(ForecastParameters(dataset=name, horizon_hours=hours, as_of=AS_OF))
    table = pl.read_parquet(made.path)
    rows = hours * dt.timedelta(hours=1) // step
    assert made.issue_time_utc == issued
    assert table["time_utc"].to_list() == [issued + lead * step for lead in range(rows)]
    assert table["lead_hours"].to_list() == [(lead + 1) * (step / dt.timedelta(hours=1)) for lead in range(rows)]
    spec = load_dataset_spec(datasets_folder() / f"{name}.yaml")
    readings = read_readings(source_files(spec.source), spec)
    by_core = forecast_readings(load_student(student_of(f"{name}-{hours}h")), readings, spec, [issued])
    assert table["q50"].to_list() == pytest.approx(by_core.quantiles[0, :, 49].tolist(), rel=1e-6)


def test_forecast__widths_follow_the_steps_that_came_true(quarters: str) -> None:
    later = [AS_OF + dt.timedelta(hours=30) + place * QUARTER for place in range(6)]
    made = [forecast(ForecastParameters(dataset=quarters, horizon_hours=1, as_of=time)) for time in later]
    widths = [pl.read_parquet(each.path)["width_above"][0] for each in made]
    moved = [abs(after / before - 1) for before, after in itertools.pairwise(widths)]
    assert all(0 < change < 0.02 for change in moved), "a quarter of an hour's rate, not an hour's"


def test_monitor__verifies_steps(quarters: str) -> None:
    start = dt.datetime(2010, 7, 24, tzinfo=dt.UTC)
    for place in range(4):
        forecast(ForecastParameters(dataset=quarters, horizon_hours=1, as_of=start + place * dt.timedelta(hours=1)))
    as_of = start + dt.timedelta(hours=4)
    health = monitor(MonitorParameters(dataset=quarters, horizon_hours=1, as_of=as_of))
    assert health.hours == 4
    daily = pl.read_parquet(health.folder / "daily.parquet")
    assert daily["hours"].to_list() == [4]


def test_report__lead_times_are_hours(quarters: str, days: str) -> None:
    for task, expected in (
        ("quarter-slice-1h", [0.25, 0.5, 0.75, 1.0]),
        ("day-slice-48h", [24, 48]),
    ):
        client = mlflow.MlflowClient()
        run_id = client.get_model_version(task, "1").run_id
        rows = json.loads(
            Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="by_lead.json")).read_text()
        )
        assert [row["lead_hours"] for row in rows["student"]] == expected


def test_forecast__a_champion_of_other_steps_is_refused(days: str) -> None:
    path = datasets_folder() / f"{days}.yaml"
    before = path.read_text()
    path.write_text(before.replace("student_step: P1D", "student_step: PT1H"))
    try:
        with pytest.raises(
            RegistryError, match="champion 1 forecasts steps of 24 h, and the spec's student_step is 1 h"
        ):
            forecast(ForecastParameters(dataset=days, horizon_hours=48, as_of=AS_OF))
        with pytest.raises(RegistryError, match="forecasts steps of 24 h, and the spec's student_step is 1 h"):
            monitor(MonitorParameters(dataset=days, horizon_hours=48, as_of=AS_OF))
    finally:
        path.write_text(before)


def test_retrain__a_horizon_that_is_no_steps_is_refused_before_anything_is_read(days: str) -> None:
    with pytest.raises(SpecError, match="horizon_hours: 36 h are not a whole number of student_step, 24 h"):
        retrain(small(days, horizon_hours=36, lookback_hours=168))
