import datetime as dt
from pathlib import Path

import mlflow
import polars as pl
import pytest

import tasks.forecast.issue
from runtime.paths import home
from runtime.registry import download_version
from schemas.forecast import ChampionManifest, HoursManifest, model_columns
from tasks.forecast.issue import forecast_path, issue_forecast
from tests.runtime.builders import Log
from tests.tutelage.data.builders import HOUR, START, meter, table_of
from tutelage.errors import DataError
from tutelage.files import write_table

SPEC = meter()
ISSUE = START + 9 * HOUR


@pytest.fixture
def champion(old_version: tuple[str, str], request: pytest.FixtureRequest) -> ChampionManifest:
    """The registered student as the champion of a task of the test's own."""
    return ChampionManifest(
        folder=download_version(*old_version),
        name=request.node.name.partition("[")[0],
        version="5",
        lookback_hours=6,
        complete_hours=6,
        horizon_hours=2,
        trained_until_utc=START,
    )


def hours_of(folder: Path, issue: dt.datetime = ISSUE, **series: tuple[int, int]) -> HoursManifest:
    """The six hours before the issue time of each series, by how many are missing and how many of them are filled."""
    tables = []
    for name, (missing, filled) in series.items():
        times = [issue - (6 - hour) * HOUR for hour in range(6)]
        power = [None if filled <= hour < missing else float(hour) for hour in range(6)]
        flags = {"missing": [hour < missing for hour in range(6)], "filled": [hour < filled for hour in range(6)]}
        tables.append(
            table_of(SPEC, power, times=times, series_id=name).drop("voltage_v").with_columns(pl.DataFrame(flags))
        )
    path, digest = write_table(pl.concat(tables), folder)
    return HoursManifest(path=path, digest=digest, issue_time_utc=issue)


def test_forecast_path__is_one_for_each_task_and_issue_time() -> None:
    path = forecast_path("meter-2h", "2024-07-01T0900Z")
    assert path == home() / "forecasts" / "meter-2h" / "issue=2024-07-01T0900Z" / "forecast.parquet"


def test_issue_forecast__stores_what_the_model_forecasts(champion: ChampionManifest, tmp_path: Path) -> None:
    hours = hours_of(tmp_path, a=(0, 0), b=(2, 2))
    issued = issue_forecast.fn(hours, SPEC, champion)
    assert issued.path == forecast_path(champion.name, "2024-07-01T0900Z")
    stored = pl.read_parquet(issued.path)
    assert stored["series_id"].to_list() == ["a", "a", "b", "b"]
    assert stored["time_utc"].to_list() == [ISSUE, ISSUE + HOUR] * 2
    assert stored["issue_time_utc"].unique().to_list() == [ISSUE]
    assert stored["quality"].to_list() == ["complete", "complete", "filled", "filled"]
    assert stored["filled_hours"].to_list() == [0, 0, 2, 2]
    assert stored["model_version"].unique().to_list() == ["5"]
    answer = mlflow.pyfunc.load_model(str(champion.folder)).predict(
        pl.read_parquet(hours.path).select(model_columns(SPEC)).to_pandas()
    )
    assert stored["q50"].to_list() == answer["q50"].tolist()
    assert (issued.fresh, issued.rows, issued.filled_hours, issued.refused) == (True, 4, 2, [])


def test_issue_forecast__what_was_issued_stays(champion: ChampionManifest, tmp_path: Path) -> None:
    first = issue_forecast.fn(hours_of(tmp_path, a=(0, 0)), SPEC, champion)
    before = first.path.read_bytes()
    newer = champion.model_copy(update={"version": "6"})
    second = issue_forecast.fn(hours_of(tmp_path, a=(1, 1), b=(0, 0)), SPEC, newer)
    assert second.path.read_bytes() == before
    assert second == first.model_copy(update={"fresh": False})


def test_issue_forecast__a_series_without_enough_hours_gets_none(
    champion: ChampionManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    monkeypatch.setattr(tasks.forecast.issue, "get_run_logger", lambda: log)
    few = SPEC.model_copy(update={"serving": SPEC.serving.model_copy(update={"at_most_hours": 2})})
    issued = issue_forecast.fn(hours_of(tmp_path, whole=(0, 0), gap=(2, 1), late=(3, 3)), few, champion)
    assert issued.refused == ["gap", "late"]
    assert pl.read_parquet(issued.path)["series_id"].unique().to_list() == ["whole"]
    assert [line.partition(":")[0] for line in log.lines] == ["gap", "late"]


def test_issue_forecast__without_any_series_issues_nothing(champion: ChampionManifest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at 2024-07-01 09:00 UTC 4 of 6 past hours are missing"):
        issue_forecast.fn(hours_of(tmp_path, a=(1, 0), b=(4, 2)), SPEC, champion)
    assert not forecast_path(champion.name, "2024-07-01T0900Z").parent.exists()
