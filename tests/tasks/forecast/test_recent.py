import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from schemas.forecast import ChampionManifest
from tasks.forecast.recent import read_recent
from tests.tutelage.data.builders import HOUR, START, meter, meter_with_plan, random_readings, write_readings
from tutelage.data.dataset import DatasetSpec
from tutelage.files import file_digest

CHAMPION = ChampionManifest(
    folder=Path("nowhere"),
    name="meter-2h",
    version="1",
    lookback_hours=6,
    complete_hours=6,
    horizon_hours=2,
    trained_until_utc=START,
)


def test_read_recent__is_the_lookback_before_the_hour(spec: DatasetSpec, meter_file: Path) -> None:
    as_of = START + 30 * HOUR + dt.timedelta(minutes=20)
    hours = read_recent.fn([meter_file], spec, CHAMPION, as_of)
    table = pl.read_parquet(hours.path)
    assert hours.issue_time_utc == START + 30 * HOUR
    assert table["time_utc"].to_list() == [START + hour * HOUR for hour in range(24, 30)]
    assert table.columns == ["series_id", "time_utc", "power_kw", "indoor_c", "missing", "filled"]
    assert not table["missing"].any()
    assert hours.digest == file_digest(hours.path)


def test_read_recent__without_as_of_ends_with_the_data(spec: DatasetSpec, meter_file: Path) -> None:
    assert read_recent.fn([meter_file], spec, CHAMPION, None).issue_time_utc == START + 24 * 24 * HOUR


def test_read_recent__hours_that_are_late_are_filled(tmp_path: Path) -> None:
    readings = random_readings(meter(), days=3)
    late = pl.col("time_utc").is_between(START + 58 * HOUR, START + 60 * HOUR, closed="left")
    write_readings(tmp_path / "late.csv", readings.filter(~late), meter())
    table = pl.read_parquet(read_recent.fn([tmp_path / "late.csv"], meter(), CHAMPION, START + 60 * HOUR).path)
    assert table["filled"].to_list() == table["missing"].to_list() == [False] * 4 + [True] * 2
    day_before = readings.filter(pl.col("time_utc").dt.truncate("1h") == START + 34 * HOUR)["power_kw"].mean()
    assert table["power_kw"][4] == pytest.approx(day_before)


def test_read_recent__what_is_planned_is_read_for_the_horizon_only(tmp_path: Path) -> None:
    spec = meter_with_plan()
    readings = random_readings(spec, days=2)
    write_readings(tmp_path / "plan.csv", readings, spec)
    table = pl.read_parquet(read_recent.fn([tmp_path / "plan.csv"], spec, CHAMPION, START + 30 * HOUR).path)
    assert table["time_utc"].to_list() == [START + hour * HOUR for hour in range(24, 32)]
    assert table["power_kw"].is_null().to_list() == [False] * 6 + [True] * 2
    planned = readings.group_by_dynamic("time_utc", every="1h").agg(pl.col("planned_c").mean())["planned_c"]
    assert table["planned_c"].to_list() == pytest.approx(planned[24:32].to_list())
