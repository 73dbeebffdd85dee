import gzip
import tracemalloc
from pathlib import Path

import polars as pl
import pytest

from tests.tutelage.data.builders import METER, START, meter, write_csv
from tutelage.data.dataset import DatasetSpec
from tutelage.data.quality import clean
from tutelage.data.readings import read_readings
from tutelage.data.resample import student_table
from tutelage.errors import DataError

TARGET = METER["columns"][0] | {"source": "meter_*"}
WIDE = meter(columns=[TARGET], series_from="header", raw_step="PT1H", quality={})


def values(table: pl.DataFrame) -> dict[str, list[float | None]]:
    by_series = table.group_by("series_id", maintain_order=True).agg("power_kw")
    return dict(by_series.iter_rows())


def test_header__each_matching_column_is_a_series(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "meters.csv",
        "time,meter_b,meter_a,comment",
        "2024-07-01 00:00:00,1,,x",
        "2024-07-01 01:00:00,2,5,x",
        "2024-07-01 02:00:00,,6,x",
    )
    table = read_readings([path], WIDE)
    assert values(table) == {"meter_b": [1, 2], "meter_a": [5, 6]}
    assert table.filter(pl.col("series_id") == "meter_a")["time_utc"][0] == START.replace(hour=1)


def test_header__a_parquet_file_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "meters.parquet"
    times = pl.Series("time", [START, START.replace(hour=1)], dtype=pl.Datetime("us", "UTC"))
    pl.DataFrame({"time": times, "meter_1": [1, 2], "meter_2": [0.5, None]}).write_parquet(path)
    spec = WIDE.model_copy(update={"source": WIDE.source.model_copy(update={"format": "parquet"})})
    assert values(read_readings([path], spec)) == {"meter_1": [1, 2], "meter_2": [0.5]}


@pytest.mark.bad_input
def test_header__an_inner_gap_is_a_missing_row_and_no_other_series_has_it(tmp_path: Path) -> None:
    rows = [f"2024-07-01 {hour:02d}:00:00,{'' if hour == 3 else hour},{hour}" for hour in range(6)]
    table = read_readings([write_csv(tmp_path / "meters.csv", "time,meter_a,meter_b", *rows)], WIDE)
    hours = student_table(clean(table, WIDE), WIDE)
    assert values(hours) == {"meter_a": [0, 1, 2, None, 4, 5], "meter_b": [0, 1, 2, 3, 4, 5]}


@pytest.mark.bad_input
def test_header__without_a_match_or_doubled_is_refused(tmp_path: Path) -> None:
    none = write_csv(tmp_path / "none.csv", "time,power", "2024-07-01 00:00:00,1")
    with pytest.raises(DataError, match=r"none\.csv: no column matches 'meter_\*'; the file has 'time', 'power'"):
        read_readings([none], WIDE)
    twice = write_csv(tmp_path / "twice.csv", "time,meter_a,meter_a", "2024-07-01 00:00:00,1,2")
    with pytest.raises(DataError, match=r"twice\.csv: column 'meter_a' occurs twice"):
        read_readings([twice], WIDE)


def test_file__each_is_a_series(tmp_path: Path) -> None:
    spec = meter(columns=[METER["columns"][0]], series_from="file", raw_step="PT1H", quality={})
    long = write_csv(tmp_path / "house-1.csv", "time,power", *(f"2024-07-01 0{hour}:00:00,{hour}" for hour in range(4)))
    short = write_csv(tmp_path / "house-2.csv", "time,power", "2024-07-01 02:00:00,9")
    assert values(read_readings([long, short], spec)) == {"house-1": [0, 1, 2, 3], "house-2": [9]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"series_from": "file", "series_column": "id"}, "series_from is file, so no column names the series"),
        ({"series_from": "header"}, "with header there is one column, the target"),
    ],
)
@pytest.mark.bad_input
def test_layout__that_contradicts_itself_is_refused(changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        meter(**changes)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_file__compressed_is_read_as_it_is(encoding: str, tmp_path: Path) -> None:
    text = "time,Außenzähler\n2024-07-01 00:00:00,1.5\n2024-07-01 01:00:00,2.5\n"
    path = tmp_path / "meter.csv.gz"
    path.write_bytes(gzip.compress(text.encode(encoding)))
    column = METER["columns"][0] | {"source": "Außenzähler"}
    source = {"path": "meter.csv.gz", "encoding": encoding}
    table = read_readings([path], meter(columns=[column], source=source, raw_step="PT1H", quality={}))
    assert table["power_kw"].to_list() == [1.5, 2.5]


def hourly(path: Path) -> DatasetSpec:
    return meter(columns=[METER["columns"][0]], source={"path": str(path)}, raw_step="PT1H", quality={})


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("bomb.csv.gz", gzip.compress(b"time,power\n" + b"0" * 2**27), "unpacks to more than 200 times its size"),
        ("long.csv", b"time,power" + b"," * 2**21, "its first line is longer than 1 MiB"),
        ("long.csv.gz", gzip.compress(b"time,power" + b"," * 2**21), "its first line is longer than 1 MiB"),
        ("text.csv.gz", b"time,power\n", "can't be unpacked: Not a gzipped file"),
        ("cut.csv.gz", gzip.compress(b"time,power\n" * 1000)[:-20], "can't be unpacked: Compressed file ended"),
    ],
    # Not the contents, which hold the time: the workers of a run would collect different tests.
    ids=["packed bomb", "long", "packed and long", "not packed", "cut"],
)
@pytest.mark.bad_input
def test_file__that_is_no_table_is_refused_in_little_memory(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError, match=f"{name}.*{sentence}"):
        read_readings([path], hourly(path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**26
