"""Where a source's files come from: folders, packages, a real S3 server, a database, a Delta table."""

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
import sqlalchemy
from deltalake import write_deltalake
from moto.server import ThreadedMotoServer

from tests.tutelage.data.builders import meter, random_readings, write_readings
from tutelage.data.dataset import DatasetSpec
from tutelage.data.readings import read_readings
from tutelage.data.source import Source, called, partitions, relative_names, source_files
from tutelage.errors import DataError, UnreachableError

BUCKET = "meters"


def test_source_files__of_an_installed_package() -> None:
    [file] = source_files(Source(package="EnergyData", file="EnergyData/data/householdpower.csv"))
    assert file.is_file()
    assert file == Path(str(importlib.metadata.distribution("EnergyData").locate_file("EnergyData/data"))) / file.name


def test_source_files__of_a_glob_are_sorted(tmp_path: Path) -> None:
    for name in ("2024.csv", "2023.csv", "2022.txt"):
        (tmp_path / name).touch()
    (tmp_path / "2021.csv").mkdir()
    assert [p.name for p in source_files(Source(path=f"{tmp_path}/*.csv"))] == ["2023.csv", "2024.csv"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"package": "NoSuchEnergy", "file": "a.csv"}, "package NoSuchEnergy is not installed"),
        ({"package": "EnergyData", "file": "a.csv"}, "package EnergyData ships no file a.csv"),
        ({"path": "/nowhere/at/all/*.csv"}, r"no file matches /nowhere/at/all/\*.csv"),
        ({"path": "nowhere/at-all.csv"}, "no file matches nowhere/at-all.csv"),
        (
            {"path": "$NO_SUCH_VARIABLE/a.csv"},
            r"the environment variable NO_SUCH_VARIABLE must name the folder with a\.csv",
        ),
    ],
)
def test_source_files__absent(source: dict[str, str], sentence: str) -> None:
    with pytest.raises(DataError, match=f"^source: {sentence}$"):
        source_files(Source.model_validate(source))


def test_source_files__may_start_with_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "2024.csv").touch()
    monkeypatch.setenv("METER_FOLDER", str(tmp_path))
    assert source_files(Source(path="$METER_FOLDER/*.csv")) == [tmp_path / "2024.csv"]


def test_source_files__another_file_than_the_spec_was_written_for(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_bytes(b"time,power\n")
    source = Source(path=str(path), sha256=hashlib.sha256(b"time,power\n").hexdigest())
    assert source_files(source) == [path]
    path.write_bytes(b"time,power\r\n")
    with pytest.raises(DataError, match=r"^source: meter\.csv is not the file that the spec was written for"):
        source_files(source)


def test_source_files__of_a_folder_are_those_of_the_format(tmp_path: Path) -> None:
    for name in ("b/2024.csv", "a/2025.csv.gz", "a/readme.md", "a/2025.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(relative_names(source_files(Source(path=str(tmp_path))))) == ["a/2025.csv.gz", "b/2024.csv"]
    assert list(relative_names(source_files(Source(path=str(tmp_path), format="parquet")))) == ["2025.parquet"]


def test_relative_names__begin_where_folders_stand_for_columns() -> None:
    files = [Path("/data/meter=7/2024/a.csv"), Path("/data/meter=7/2025/a.csv")]
    assert list(relative_names(files)) == ["meter=7/2024/a.csv", "meter=7/2025/a.csv"]
    copies = [Path("/home/@1f/2024/a.csv"), Path("/home/@2e/2025/a.csv")]
    assert relative_names(copies) == {"2024/a.csv": copies[0], "2025/a.csv": copies[1]}
    assert relative_names([]) == {}


def test_partitions__are_columns_of_their_files(tmp_path: Path) -> None:
    spec = meter(series_column="meter", source__path=str(tmp_path))
    readings = random_readings(spec, days=1)
    for name in ("north", "S\u00fcd 2"):
        folder = tmp_path / f"meter={name.replace(' ', '%20')}"
        folder.mkdir()
        write_readings(folder / "part-0.csv", readings, spec)
    files = source_files(spec.source)
    assert [partitions(file) for file in files] == [{"meter": "S\u00fcd 2"}, {"meter": "north"}]
    table = read_readings(files, spec)
    assert table.group_by("series_id").len().sort("series_id").rows() == [("S\u00fcd 2", 1440), ("north", 1440)]
    (tmp_path / "meter=north" / "part-0.csv").write_text("time,power\n")
    assert called(files[1]) == "meter=north/part-0.csv"
    with pytest.raises(DataError, match=r"^meter=north/part-0\.csv: column 'indoor' is missing"):
        read_readings(files, spec)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 server on this machine, which the environment variables name."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a-test",
        "AWS_SECRET_ACCESS_KEY": "for-a-test",
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client
    client.close()
    server.stop()


def test_store__objects_are_copied_once_for_each_version(s3: Any, tmp_path: Path) -> None:
    for name in ("raw/a/2024.csv", "raw/a/2025.csv", "raw/b/2025.csv", "raw/notes.txt.md"):
        s3.put_object(Bucket=BUCKET, Key=name, Body=f"rows of {name}".encode())
    source = Source(path="s3://meters/raw/*/2025.csv")
    files = source_files(source, tmp_path)
    assert {name: path.read_text() for name, path in relative_names(files).items()} == {
        "a/2025.csv": "rows of raw/a/2025.csv",
        "b/2025.csv": "rows of raw/b/2025.csv",
    }
    written = [path.stat().st_mtime_ns for path in files]
    assert source_files(source, tmp_path) == files
    assert [path.stat().st_mtime_ns for path in files] == written, "nothing is copied twice"

    s3.put_object(Bucket=BUCKET, Key="raw/b/2025.csv", Body=b"more rows")
    again = source_files(source, tmp_path)
    assert (again[0], again[1].read_text(), files[1].read_text()) == (files[0], "more rows", "rows of raw/b/2025.csv")
    assert list(relative_names(again)) == list(relative_names(files))

    below = source_files(Source(path="s3://meters/raw/"), tmp_path)
    assert list(relative_names(below)) == ["a/2024.csv", "a/2025.csv", "b/2025.csv"]
    assert source_files(Source(path="s3://meters/**/2024.csv"), tmp_path)[0].read_text() == "rows of raw/a/2024.csv"
    [one] = source_files(Source(path="s3://meters/raw/a/2024.csv"), tmp_path)
    assert one.name == "2024.csv"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("s3://meters/raw/none.csv", "^source: there is no s3://meters/raw/none.csv$"),
        ("s3://meters/none/*.csv", r"^source: no file matches s3://meters/none/\*\.csv$"),
    ],
)
def test_store__absent(s3: Any, path: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence):
        source_files(Source(path=path), tmp_path)


def test_store__a_name_leads_out_of_no_folder(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="odd/a/../../../evil.csv", Body=b"time,power")
    with pytest.raises((DataError, UnreachableError), match=r"^source: s3://meters/odd/ "):
        source_files(Source(path="s3://meters/odd/"), tmp_path / "copies")
    assert not list(tmp_path.rglob("evil.csv"))


def test_store__one_that_does_not_answer_may_be_tried_again(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnreachableError, match=r"^source: s3://other/\*\.csv can't be read: .* 404 Not Found"):
        source_files(Source(path="s3://other/*.csv"), tmp_path)
    monkeypatch.setenv("TUTELAGE_NOWHERE", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"^source: http://127\.0\.0\.1:9/a\.csv can't be read: "):
        source_files(Source(path="$TUTELAGE_NOWHERE/a.csv"), tmp_path)


def spec_of_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DatasetSpec, str]:
    """A spec of a table in SQLite, and the database's URL."""
    spec = meter()
    url = f"sqlite:///{tmp_path}/meters.db"
    write_readings(tmp_path / "meter.csv", random_readings(spec, days=1), spec)
    pl.read_csv(tmp_path / "meter.csv").write_database("minutes", url)
    monkeypatch.setenv("METERS_DATABASE", url)
    source = Source(database="METERS_DATABASE", query="select * from minutes order by time")
    return spec.model_copy(update={"source": source}), url


def test_database__rows_are_read_as_those_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, url = spec_of_table(tmp_path, monkeypatch)
    files = source_files(spec.source, tmp_path / "copies")
    assert list(relative_names(files)) == ["query.parquet"]
    of_file = read_readings([tmp_path / "meter.csv"], meter())
    assert read_readings(files, spec).equals(of_file)
    assert source_files(spec.source, tmp_path / "copies") == files, "the same rows are one copy"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("delete from minutes where power > 1"))
    engine.dispose()
    [fewer] = source_files(spec.source, tmp_path / "copies")
    assert fewer != files[0]
    assert fewer.name == "query.parquet"
    assert not list((tmp_path / "copies").glob("*.parquet")), "nothing else is left there"


@pytest.mark.bad_input
def test_database__what_is_wrong_is_said_without_its_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METERS_DATABASE", raising=False)
    source = Source(database="METERS_DATABASE", query="select 1 as one")
    with pytest.raises(DataError, match=r"variable METERS_DATABASE must hold the database's URL$"):
        source_files(source, tmp_path)
    for url, kind, sentence in (
        ("postgresql+psycopg://me:s3cret@127.0.0.1:9/meters?connect_timeout=2", UnreachableError, "can't be read: "),
        ("nodriver://me:s3cret@127.0.0.1/meters", DataError, "the query in the database of METERS_DATABASE fails: "),
        ("s3cret", DataError, "the query in the database of METERS_DATABASE fails: "),
        ("sqlite:////nowhere/at/all.db", UnreachableError, "can't be read: unable to open database file"),
    ):
        monkeypatch.setenv("METERS_DATABASE", url)
        with pytest.raises(kind, match=sentence) as error:
            source_files(source, tmp_path)
        assert "s3cret" not in str(error.value)
    monkeypatch.setenv("METERS_DATABASE", "sqlite://")
    with pytest.raises(
        UnreachableError, match=r"^source: the database of METERS_DATABASE can't be read: no such table"
    ):
        source_files(Source(database="METERS_DATABASE", query="select * from no_table"), tmp_path)


def test_delta__the_newest_version_of_a_table(tmp_path: Path) -> None:
    spec = meter(source__path=str(tmp_path / "table"), source__format="delta")
    write_readings(tmp_path / "meter.csv", random_readings(spec, days=1), spec)
    rows = pl.read_csv(tmp_path / "meter.csv")
    write_deltalake(tmp_path / "table", rows.head(100).to_arrow())
    write_deltalake(tmp_path / "table", rows.tail(-100).to_arrow(), mode="append")
    [path] = source_files(spec.source, tmp_path / "copies")
    assert path.name == "table.parquet"
    table = read_readings([path], spec).sort("time_utc")
    assert table.equals(read_readings([tmp_path / "meter.csv"], meter()).sort("time_utc"))
    with pytest.raises(DataError, match=r"^source: there is no Delta table .*/none$"):
        source_files(spec.source.model_copy(update={"path": str(tmp_path / "none")}), tmp_path)


def test_source_files__what_must_be_copied_needs_a_folder() -> None:
    with pytest.raises(DataError, match=r"^source: s3://meters/\*\.csv is read by a flow only, which copies it$"):
        source_files(Source(path="s3://meters/*.csv"))
