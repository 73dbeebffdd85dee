"""Readings from a table of a real PostgreSQL server: with zoned times, numerics, nulls; and a server that is away."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy

from tests.service.conftest import free_port
from tests.service.postgres import PASSWORD, running_postgres
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.readings import read_readings
from tutelage.data.source import Source, source_files
from tutelage.errors import DataError, UnreachableError

pytestmark = pytest.mark.service

TABLE = """
create table minutes (measured timestamptz, site text, kilowatts numeric(8, 3));
insert into minutes
    select timestamptz '2024-07-01 00:00+02' + n * interval '1 minute', site, (n % 97) / 10.0 + 1
    from generate_series(0, 2879) n, (values ('north'), ('south')) sites (site);
update minutes set kilowatts = null where site = 'south' and measured < timestamptz '2024-07-01 00:10+02';
"""
SPEC = """
name: minutes
description: Two sites, minute by minute
source: {database: METERS_DATABASE, query: "select * from minutes order by site, measured", format: parquet}
timestamp: {columns: [measured], timezone: Europe/Berlin}
series_column: site
target: load_kw
raw_step: PT1M
student_step: PT1H
columns:
  - {name: load_kw, source: kilowatts, role: observed, unit: kW, minimum: 0, maximum: 50}
calendar: {timezone: Europe/Berlin, country: DE}
"""
QUERY = "select measured, kilowatts from minutes where site = '{site}' order by measured"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_postgres(tmp_path_factory.mktemp("postgres") / "server", free_port()) as url:
        yield url.replace("postgresql://", "postgresql+psycopg://") + "/postgres"


@pytest.fixture(scope="module")
def filled(server: str) -> str:
    engine = sqlalchemy.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(TABLE))
    engine.dispose()
    return server


def source_of(site: str) -> Source:
    return Source(database="METERS_DATABASE", query=QUERY.format(site=site))


def test_database__zoned_times_and_numerics_are_read_as_they_are(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERS_DATABASE", filled)
    [north] = source_files(source_of("north"), tmp_path)
    rows = pl.read_parquet(north)
    assert rows.height == 2880
    assert rows["measured"].dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%d %H:%M")[0] == "2024-06-30 22:00"
    assert rows["kilowatts"].cast(pl.Float64).to_list()[:3] == pytest.approx([1.0, 1.1, 1.2])
    [south] = source_files(source_of("south"), tmp_path)
    assert pl.read_parquet(south)["kilowatts"].null_count() == 10


def test_database__is_a_dataset_like_any_other(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERS_DATABASE", filled)
    path = tmp_path / "minutes.yaml"
    path.write_text(SPEC, encoding="utf-8")
    spec = load_dataset_spec(path)
    readings = read_readings(source_files(spec.source, tmp_path), spec)
    assert readings["series_id"].unique().sort().to_list() == ["north", "south"]
    first = readings.filter(pl.col("series_id") == "north").row(0, named=True)
    assert first["time_utc"] == dt.datetime(2024, 6, 30, 22, tzinfo=dt.UTC)
    assert first["load_kw"] == pytest.approx(1.0)


def test_database__what_is_wrong_is_a_sentence_without_the_password(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(url: str, query: str, kind: type[Exception]) -> str:
        monkeypatch.setenv("METERS_DATABASE", url)
        with pytest.raises(kind) as error:
            source_files(Source(database="METERS_DATABASE", query=query), tmp_path)
        return str(error.value)

    wrong = filled.replace(PASSWORD, "of-somebody-else")
    said = [
        refused(wrong, "select 1 as one", UnreachableError),
        refused(filled, "select * from seconds", DataError),
        refused(filled, "delete from minutes", DataError),
        refused(filled.replace("127.0.0.1:", "127.0.0.1:1"), "select 1 as one", UnreachableError),
    ]
    assert said[1].endswith('fails: relation "seconds" does not exist')
    assert said[2] == "source: the query in the database of METERS_DATABASE is no select: it gives no rows"
    for sentence in said:
        assert PASSWORD not in sentence
        assert "of-somebody-else" not in sentence
        assert "\n" not in sentence
    monkeypatch.setenv("METERS_DATABASE", filled)
    [north] = source_files(source_of("north"), tmp_path)
    assert pl.read_parquet(north).height == 2880, "a query changes nothing"
