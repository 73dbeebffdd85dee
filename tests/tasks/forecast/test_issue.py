import datetime as dt
from pathlib import Path

import mlflow
import polars as pl
import pytest

import tasks.forecast.issue
from runtime.paths import home
from runtime.registry import download_version
from schemas.forecast import ChampionManifest, RecentManifest, model_columns
from tasks.forecast.following import WIDTH_ABOVE, WIDTH_BELOW
from tasks.forecast.issue import _sorted_out, forecast_path, issue_forecast
from tests.runtime.builders import Log
from tests.tutelage.data.builders import HOUR, START, meter, meter_with_plan, table_of
from tutelage.data.dataset import Role
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


def hours_of(folder: Path, issue: dt.datetime = ISSUE, **series: tuple[int, int]) -> RecentManifest:
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
    return RecentManifest(path=path, digest=digest, issue_time_utc=issue)


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


def test_issue_forecast__names_ended_series_once(
    champion: ChampionManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    monkeypatch.setattr(tasks.forecast.issue, "get_run_logger", lambda: log)
    ended = {f"meter-{number:02d}": (6, 6) for number in range(12)}
    issued = issue_forecast.fn(hours_of(tmp_path, whole=(0, 0), **ended), SPEC, champion)
    assert issued.refused == []
    assert pl.read_parquet(issued.path)["series_id"].unique().to_list() == ["whole"]
    [line] = log.lines
    assert line.startswith("without a reading in the last 6 hours, so without a forecast: meter-00, ")
    assert line.endswith("meter-09 and 2 more")


def test_sorted_out__a_plan_that_one_series_lacks_harms_no_other(champion: ChampionManifest) -> None:
    spec = meter_with_plan()
    [planned] = spec.names(Role.KNOWN_FUTURE)
    times = [ISSUE + hour * HOUR for hour in range(-6, 2)]
    tables = [
        pl.DataFrame({"series_id": name, "time_utc": times, "missing": False, "filled": False}).with_columns(
            pl.Series(planned, [1.0] * 7 + [last], dtype=pl.Float64)
        )
        for name, last in (("a", 1.0), ("b", None))
    ]
    good, refused = _sorted_out(pl.concat(tables), ISSUE, spec, champion)
    assert good["series_id"].to_list() == ["a"]
    assert refused == {"b": f"{planned} is not known of 1 of the 2 hours ahead"}


def test_issue_forecast__without_any_series_issues_nothing(champion: ChampionManifest, tmp_path: Path) -> None:
    wrong = r"at 2024-07-01 09:00 UTC a: 1 of 6 past hours are missing.*; b: 4 of 6 .*; nothing is issued"
    with pytest.raises(DataError, match=wrong):
        issue_forecast.fn(hours_of(tmp_path, a=(1, 0), b=(4, 2)), SPEC, champion)
    with pytest.raises(DataError, match="no series has a reading in the last 6 hours; nothing is issued"):
        issue_forecast.fn(hours_of(tmp_path, a=(6, 6), b=(6, 0)), SPEC, champion)
    assert not forecast_path(champion.name, "2024-07-01T0900Z").parent.exists()


def quantiles_at(path: Path, name: str = "a") -> pl.DataFrame:
    return (
        pl.read_parquet(path).filter(pl.col("series_id") == name).select("q10", "q50", "q90", WIDTH_BELOW, WIDTH_ABOVE)
    )


def test_issue_forecast__follows_what_comes_true_series_by_series(champion: ChampionManifest, tmp_path: Path) -> None:
    first = issue_forecast.fn(hours_of(tmp_path, a=(0, 0), b=(0, 0)), SPEC, champion)
    assert quantiles_at(first.path)[WIDTH_BELOW].to_list() == [1.0, 1.0]
    _, q50, q90 = (float(value) for value in quantiles_at(first.path).row(0)[:3])
    # An hour later the first forecast hour has come true: above the interval of a, inside that of b.
    later = hours_of(tmp_path, ISSUE + HOUR, a=(0, 0), b=(0, 0))
    table = pl.read_parquet(later.path)
    here, name = pl.col("time_utc") == ISSUE, SPEC.target
    true = pl.when(here & (pl.col("series_id") == "a")).then(q90 + 1).when(here).then(q50).otherwise(pl.col(name))
    path, digest = write_table(table.with_columns(true.alias(name)), tmp_path)
    second = issue_forecast.fn(later.model_copy(update={"path": path, "digest": digest}), SPEC, champion)
    above, inside = (quantiles_at(second.path, series).row(0, named=True) for series in ("a", "b"))
    assert above[WIDTH_ABOVE] > 1 > above[WIDTH_BELOW]
    assert inside[WIDTH_ABOVE] == inside[WIDTH_BELOW] < 1
    model = mlflow.pyfunc.load_model(str(champion.folder))
    by_model = model.predict(pl.read_parquet(path).select(model_columns(SPEC)).to_pandas()).iloc[0]
    assert above["q50"] == pytest.approx(by_model["q50"])
    assert above["q90"] - above["q50"] == pytest.approx(above[WIDTH_ABOVE] * (by_model["q90"] - by_model["q50"]))
    assert above["q50"] - above["q10"] == pytest.approx(above[WIDTH_BELOW] * (by_model["q50"] - by_model["q10"]))


@pytest.mark.parametrize("how", ["another version", "no widths"])
def test_issue_forecast__starts_anew(champion: ChampionManifest, tmp_path: Path, how: str) -> None:
    first = issue_forecast.fn(hours_of(tmp_path, a=(0, 0)), SPEC, champion)
    stored = pl.read_parquet(first.path)
    changed = (
        stored.drop(WIDTH_BELOW, WIDTH_ABOVE)
        if how == "no widths"
        else stored.with_columns(pl.lit(2.0).alias(WIDTH_ABOVE))
    )
    changed.write_parquet(first.path)
    newer = champion.model_copy(update={"version": "6"}) if how == "another version" else champion
    second = issue_forecast.fn(hours_of(tmp_path, ISSUE + HOUR, a=(0, 0)), SPEC, newer)
    assert quantiles_at(second.path)[WIDTH_ABOVE].to_list() == [1.0, 1.0]


def test_issue_forecast__a_missing_hour_comes_not_true(champion: ChampionManifest, tmp_path: Path) -> None:
    issue_forecast.fn(hours_of(tmp_path, a=(0, 0)), SPEC, champion)
    later = hours_of(tmp_path, ISSUE + HOUR, a=(0, 0))
    gone = pl.read_parquet(later.path).with_columns(
        missing=pl.col("time_utc") == ISSUE, filled=pl.col("time_utc") == ISSUE
    )
    path, digest = write_table(gone, tmp_path)
    second = issue_forecast.fn(later.model_copy(update={"path": path, "digest": digest}), SPEC, champion)
    assert quantiles_at(second.path)[WIDTH_ABOVE].to_list() == [1.0, 1.0]
