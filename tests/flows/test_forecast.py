import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import polars as pl
import pytest

from flows.forecast import forecast
from flows.retrain import retrain
from flows.rollback import rollback
from flows.tidy import tidy
from runtime.paths import datasets_folder, home
from runtime.registry import find_version
from schemas.forecast import ForecastManifest, ForecastParameters
from schemas.promotion import RollbackParameters
from schemas.tidy import TidyParameters
from tests.flows.test_retrain import small
from tests.household import write_slice
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.readings import read_readings
from tutelage.data.source import source_files
from tutelage.errors import DataError, RegistryError
from tutelage.model.inference import forecast_readings, load_student

pytestmark = pytest.mark.usefixtures("prefect_server")

AS_OF = dt.datetime(2010, 7, 28, 9, 30, tzinfo=dt.UTC)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(prefect_server: None, begun: float) -> str:
    """A slice of the household with a champion that forecasts six hours from a day."""
    name = write_slice(datasets_folder(), name="forecast-slice", days=40)
    verdict = retrain(small(name, horizon_hours=6, lookback_hours=24))
    assert "no better than a simple forecast" in find_version(verdict.task, 1).tags["promotion"]
    with pytest.raises(RegistryError, match="version 1 is a challenger "):
        asked(name)
    by = {"by": "ada", "why": "the tests need a champion"}
    rollback(RollbackParameters(name=verdict.task, version=1, **by))
    return name


def asked(dataset: str, as_of: dt.datetime | None = AS_OF, horizon_hours: int = 6) -> ForecastManifest:
    return forecast(ForecastParameters(dataset=dataset, horizon_hours=horizon_hours, as_of=as_of))


@pytest.fixture
def late(dataset: str) -> Iterator[Path]:
    """The dataset's file, to be changed; put back afterwards."""
    path = datasets_folder() / f"{dataset}.csv"
    whole = path.read_text()
    yield path
    path.write_text(whole)


def without_hours(path: Path, *hours: dt.datetime) -> None:
    """Take hours (UTC) out of the file, whose clock is an hour ahead."""
    local = [f"{hour + dt.timedelta(hours=1):%Y-%m-%d %H}:" for hour in hours]
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(row for row in rows if not any(hour in row for hour in local)))


def test_forecast__is_partitioned_by_issue_time(dataset: str) -> None:
    issued = asked(dataset)
    assert issued.path == home() / "forecasts" / "forecast-slice-6h" / "issue=2010-07-28T0900Z" / "forecast.parquet"
    table = pl.read_parquet(issued.path)
    first = dt.datetime(2010, 7, 28, 9, tzinfo=dt.UTC)
    assert table["time_utc"].to_list() == [first + dt.timedelta(hours=lead) for lead in range(6)]
    assert table["issue_time_utc"].unique().to_list() == [first]
    assert table["quality"].unique().to_list() == ["complete"]
    assert (table["q10"] <= table["q90"]).all()
    assert issued.model_version == "1"


def test_forecast__is_what_the_core_says_of_the_raw_readings(dataset: str) -> None:
    table = pl.read_parquet(asked(dataset).path)
    spec = load_dataset_spec(datasets_folder() / f"{dataset}.yaml")
    readings = read_readings(source_files(spec.source), spec)
    source = mlflow.artifacts.download_artifacts(artifact_uri="models:/forecast-slice-6h@champion")
    student = load_student(Path(source) / "artifacts" / "export")
    by_core = forecast_readings(student, readings, spec, [table["issue_time_utc"][0]])
    assert table["q50"].to_list() == pytest.approx(by_core.quantiles[0, :, 49].tolist(), rel=1e-6)


def test_forecast__a_second_time_changes_nothing(dataset: str) -> None:
    first = asked(dataset, AS_OF - dt.timedelta(hours=3))
    before = (first.path.read_bytes(), first.path.stat().st_mtime_ns)
    second = asked(dataset, AS_OF - dt.timedelta(hours=3, minutes=10))
    assert (first.fresh, second.fresh) == (True, False)
    assert (second.path.read_bytes(), second.path.stat().st_mtime_ns) == before
    assert not list(home().glob("forecasts/**/*.part"))


@pytest.mark.fault
def test_forecast__goes_on_after_all_caches_are_gone(dataset: str, begun: float) -> None:
    before = asked(dataset, AS_OF - dt.timedelta(hours=5))
    whole = before.path.read_bytes()
    used = [path for path in home().rglob("*") if path.lstat().st_mtime >= begun]
    for path in used:
        if "prefect" not in path.relative_to(home()).parts:
            state = path.lstat()
            os.utime(path, (state.st_atime, state.st_mtime - 100 * 24 * 3600), follow_symlinks=False)
    tidied = tidy(TidyParameters())
    assert {"trainings/students", "data/features", "versions/forecast-slice-6h"} <= set(tidied.removed_bytes)
    assert not any(path.exists() for path in home().glob("trainings/*/*") if path in used)
    assert asked(dataset, AS_OF - dt.timedelta(hours=6)).fresh
    again = asked(dataset, AS_OF - dt.timedelta(hours=5))
    assert (again.fresh, again.path.read_bytes()) == (False, whole)


def test_forecast__without_as_of_begins_where_the_data_end(dataset: str) -> None:
    assert asked(dataset, None).issue_time_utc == dt.datetime(2010, 7, 30, 23, tzinfo=dt.UTC)


def test_forecast__late_hours_are_filled_and_told(dataset: str, late: Path) -> None:
    as_of = AS_OF - dt.timedelta(days=1)
    without_hours(late, *(as_of.replace(minute=0) - dt.timedelta(hours=back) for back in (1, 2)))
    issued = asked(dataset, as_of)
    table = pl.read_parquet(issued.path)
    assert issued.filled_hours == 2
    assert table["quality"].unique().to_list() == ["filled"]
    assert table["filled_hours"].unique().to_list() == [2]


def test_forecast__too_many_late_hours_issue_nothing(dataset: str, late: Path) -> None:
    as_of = AS_OF - dt.timedelta(days=2)
    without_hours(late, *(as_of.replace(minute=0) - dt.timedelta(hours=back) for back in range(1, 8)))
    with pytest.raises(DataError, match="7 of 24 past hours are missing, more than rule season of the spec can fill"):
        asked(dataset, as_of)
    assert not (home() / "forecasts" / "forecast-slice-6h" / f"issue={as_of:%Y-%m-%dT%H}00Z").exists()


def test_forecast__without_a_champion_says_what_to_do(dataset: str) -> None:
    with pytest.raises(RegistryError, match="forecast-slice-5h has no champion yet: retrain it first"):
        asked(dataset, horizon_hours=5)


ALONE = """
import sys
from flows.forecast import forecast
from schemas.forecast import ForecastParameters
issued = forecast(ForecastParameters.model_validate_json(sys.argv[1]))
assert "torch" not in sys.modules
print(issued.model_dump_json())
"""


def test_forecast__needs_no_torch(dataset: str) -> None:
    parameters = ForecastParameters(dataset=dataset, horizon_hours=6, as_of=AS_OF - dt.timedelta(hours=8))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, parameters.model_dump_json()],
        cwd=ROOT,
        env=os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["fresh"] is True
