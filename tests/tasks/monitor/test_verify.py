import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from runtime.health import record_request
from runtime.paths import home
from schemas.forecast import ChampionManifest
from tasks.forecast.issue import forecast_path
from tasks.monitor.verify import verify_forecasts
from tests.runtime.builders import DAY
from tests.tutelage.data.builders import HOUR, START
from tutelage.data.dataset import DatasetSpec
from tutelage.data.readings import read_readings
from tutelage.data.resample import student_table
from tutelage.errors import DataError
from tutelage.files import read_json
from tutelage.forecasts import QUANTILE_LEVELS, QUANTILE_NAMES

AS_OF = START + 24 * DAY


@pytest.fixture
def champion(request: pytest.FixtureRequest) -> ChampionManifest:
    return ChampionManifest(
        folder=Path("nowhere"),
        name=request.node.name.partition("[")[0],
        version="3",
        lookback_hours=6,
        complete_hours=6,
        horizon_hours=24,
        trained_until_utc=START + 15 * DAY,
    )


@pytest.fixture(scope="module")
def hours(spec: DatasetSpec, meter_file: Path) -> pl.DataFrame:
    return student_table(read_readings([meter_file], spec), spec)


def store(
    name: str,
    hours: pl.DataFrame,
    first: dt.datetime,
    days: int,
    *,
    bias: float,
    spread: float = 1.0,
    version: str = "3",
) -> None:
    """Store one forecast a day: uniform around the actual value plus a bias."""
    for day in range(days):
        issued = first + day * DAY
        actual = hours.filter(pl.col("time_utc").is_between(issued, issued + DAY, closed="left"))
        power = actual["power_kw"].to_numpy() + bias
        quantiles = {
            column: power + spread * (level - 0.5)
            for column, level in zip(QUANTILE_NAMES, QUANTILE_LEVELS, strict=True)
        }
        path = forecast_path(name, f"{issued:%Y-%m-%dT%H%MZ}")
        path.parent.mkdir(parents=True)
        table = actual.select("series_id", pl.lit(issued).alias("issue_time_utc"), "time_utc")
        table.with_columns(mean=pl.Series(power), **{n: pl.Series(v) for n, v in quantiles.items()}).with_columns(
            pl.col("issue_time_utc").cast(pl.Datetime("us", "UTC")), model_version=pl.lit(version)
        ).write_parquet(path)


def test_verify_forecasts__good_ones_break_nothing(
    spec: DatasetSpec, meter_file: Path, champion: ChampionManifest, hours: pl.DataFrame
) -> None:
    store(champion.name, hours, AS_OF - 5 * DAY, 5, bias=0.09, spread=0.2)
    tolerant = spec.model_copy(update={"monitoring": spec.monitoring.model_copy(update={"coverage_80": (0.0, 1.0)})})
    health = verify_forecasts.fn([meter_file], tolerant, champion, None)
    assert (health.as_of_utc, health.hours, health.model_version) == (AS_OF, 5 * 24, "3")
    assert health.broken == []
    assert health.skill > 0
    assert health.coverage_80 == 0.0, "each value lies at the fifth hundredth of its distribution"
    assert set(health.drift) == {"power_kw", "indoor_c"}
    assert health.folder == home() / "monitoring" / champion.name / "as-of=2024-07-25T0000Z"
    assert {file.name for file in health.folder.iterdir()} == {"daily.parquet", "health.png", "health.json"}
    daily = pl.read_parquet(health.folder / "daily.parquet")
    assert daily["hours"].to_list() == [24, 48, 72, 96, 120]
    assert read_json(health.folder / "health.json")["drift"] == health.drift


def test_verify_forecasts__names_what_is_broken(
    spec: DatasetSpec, meter_file: Path, champion: ChampionManifest, hours: pl.DataFrame
) -> None:
    store(champion.name, hours, AS_OF - 5 * DAY, 4, bias=8.0)
    health = verify_forecasts.fn([meter_file], spec, champion, AS_OF - DAY + dt.timedelta(minutes=10))
    assert health.as_of_utc == AS_OF - DAY
    skill, coverage = health.broken
    assert f"{health.skill:+.1%}" in skill
    assert "0.0%" in coverage
    assert health.skill < 0


def test_verify_forecasts__asks_once_for_a_retrain(
    spec: DatasetSpec, meter_file: Path, champion: ChampionManifest, hours: pl.DataFrame
) -> None:
    store(champion.name, hours, AS_OF - 8 * DAY, 8, bias=8.0)
    rule = spec.monitoring.model_copy(update={"cooldown_days": 3})
    spec = spec.model_copy(update={"monitoring": rule})

    def asked(days: int, **changes: object) -> tuple[bool, dt.datetime | None]:
        health = verify_forecasts.fn([meter_file], spec, champion.model_copy(update=changes), AS_OF - days * DAY)
        assert health.broken
        return health.asks, health.asked_utc

    first = AS_OF - 5 * DAY
    assert asked(5) == (True, None)
    assert asked(5) == (True, None), "the first run ended before it asked"
    record_request(verify_forecasts.fn([meter_file], spec, champion, first))
    assert asked(5) == (False, first), "the same end of the data again"
    assert asked(4) == (False, first)
    assert asked(3) == (False, first)
    assert asked(2) == (True, None), "after the cooldown"


def test_verify_forecasts__what_a_version_forecast_of_days_that_it_learned_from_does_not_count(
    spec: DatasetSpec, meter_file: Path, champion: ChampionManifest, hours: pl.DataFrame
) -> None:
    store(champion.name, hours, AS_OF - 5 * DAY, 5, bias=0.0)
    later = champion.model_copy(update={"trained_until_utc": AS_OF - 2 * DAY})
    assert verify_forecasts.fn([meter_file], spec, later, None).hours == 2 * 24


def test_verify_forecasts__a_version_answers_for_its_own_forecasts(
    spec: DatasetSpec, meter_file: Path, champion: ChampionManifest, hours: pl.DataFrame
) -> None:
    store(champion.name, hours, AS_OF - 5 * DAY, 3, bias=8.0, version="2")
    new = verify_forecasts.fn([meter_file], spec, champion, AS_OF - 2 * DAY)
    assert (new.hours, new.skill, new.coverage_80, new.broken, new.asks) == (0, None, None, [], False)
    store(champion.name, hours, AS_OF - 2 * DAY, 2, bias=0.0)
    tolerant = spec.model_copy(update={"monitoring": spec.monitoring.model_copy(update={"coverage_80": (0.0, 1.0)})})
    later = verify_forecasts.fn([meter_file], tolerant, champion, AS_OF)
    assert (later.hours, later.broken) == (48, [])
    assert pl.read_parquet(later.folder / "daily.parquet")["hours"].to_list() == [24, 48, 72, 96, 120]


def test_verify_forecasts__counts_only_hours_that_have_come_true(
    spec: DatasetSpec, meter_file: Path, champion: ChampionManifest, hours: pl.DataFrame
) -> None:
    store(champion.name, hours, AS_OF - 3 * DAY, 3, bias=0.0)
    health = verify_forecasts.fn([meter_file], spec, champion, AS_OF - DAY - 18 * HOUR)
    assert health.hours == 24 + 6
    assert health.broken == [], "fewer hours than an alert needs"
    assert np.isclose(health.coverage_80, 1.0)


def test_verify_forecasts__without_a_stored_forecast(
    spec: DatasetSpec, meter_file: Path, champion: ChampionManifest, hours: pl.DataFrame
) -> None:
    with pytest.raises(DataError, match=f"{champion.name}: .*forecast"):
        verify_forecasts.fn([meter_file], spec, champion, None)
    store(champion.name, hours, AS_OF - DAY, 1, bias=0.0)
    with pytest.raises(DataError, match=f"{champion.name}: .*2024-07-24"):
        verify_forecasts.fn([meter_file], spec, champion, AS_OF - DAY)
