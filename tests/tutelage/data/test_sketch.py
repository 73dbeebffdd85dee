"""What is seen of files that nobody has described."""

import datetime as dt
import gzip
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from tutelage.data.clues import clock_clue, report_lines, step_of
from tutelage.data.sketch import are_series, files_of, sketch_file
from tutelage.errors import DataError

HOUR = dt.timedelta(hours=1)
JULY = dt.datetime(2024, 7, 1)


def write(
    folder: Path, header: str, row: Callable[[dt.datetime, int], str], *, hours: int = 100, name: str = "m.csv"
) -> Path:
    """A file with a row for each hour from July on."""
    path = folder / name
    lines = [header, *(row(JULY + hour * HOUR, hour) for hour in range(hours))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("stamp", "form"),
    [
        ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S"),
        ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M"),
        ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S%z"),
        ("%Y-%m-%dT%H:%M:%S+02:00", "%Y-%m-%dT%H:%M:%S%z"),
        ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M"),
        ("%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M"),
        ("%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M"),
        ("%Y%m%d%H%M", "%Y%m%d%H%M"),
        ("%Y-%m-%d %H:%M:%S.000", "%Y-%m-%d %H:%M:%S%.f"),
    ],
)
def test_time__is_read_in_the_form_that_it_has(stamp: str, form: str, tmp_path: Path) -> None:
    """Day and month can both be first in the days of July's first half: what steps evenly is right."""
    sketch = sketch_file(write(tmp_path, "when,load_kw", lambda time, hour: f"{time:{stamp}},{hour % 24}.5", hours=800))
    assert (sketch.time.columns, sketch.time.format) == (("when",), form)
    assert step_of(sketch) == HOUR
    assert sketch.table["local"].null_count() == 0


def test_time__in_two_columns(tmp_path: Path) -> None:
    sketch = sketch_file(write(tmp_path, "Date;Time;P", lambda time, hour: f"{time:%d/%m/%Y};{time:%H:%M:%S};{hour}.5"))
    assert (sketch.time.columns, sketch.time.format) == (("Date", "Time"), "%d/%m/%Y %H:%M:%S")


def test_file__of_a_german_meter(tmp_path: Path) -> None:
    """Two lines before the header, Latin letters in one byte, decimal commas, thousands marks, texts for no value."""
    path = tmp_path / "zähler.csv"
    rows = [
        f"{JULY + hour * HOUR:%d.%m.%Y %H:%M};{'n/a' if hour == 5 else f'1.{hour + 100},25'};{20 + hour % 5},5"
        for hour in range(60)
    ]
    path.write_bytes(
        "\r\n".join(["Zähler Süd", "Stand heute", "Zeit;Leistung [kW];Außen [°C]", *rows]).encode("latin-1")
    )
    sketch = sketch_file(path)
    source = sketch.source
    assert (source.encoding, source.separator, source.skip_lines) == ("cp1252", ";", 2)
    assert (source.decimal, source.thousands, source.null_values) == (",", ".", ("", "n/a"))
    power, outside = sketch.columns
    assert (power.source, power.name, power.unit) == ("Leistung [kW]", "leistung_kw", "kW")
    assert (outside.name, outside.unit) == ("au_en_c", "°C")
    assert (power.lowest, power.highest) == (1100.25, 1159.25)


def test_file__compressed_and_of_parquet_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, "when,load_kw", lambda time, hour: f"{time},{hour}.5")
    plain = sketch_file(path)
    zipped = tmp_path / "m.csv.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert sketch_file(zipped).table.equals(plain.table)
    parquet = tmp_path / "m.parquet"
    pl.read_csv(path, try_parse_dates=True).write_parquet(parquet)
    of_parquet = sketch_file(parquet)
    assert (of_parquet.time.format, of_parquet.columns) == ("", plain.columns)


def test_series__is_the_column_that_keeps_equal_times_apart(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    rows = [f"{JULY + hour * HOUR},{meter},north,{hour}.5" for hour in range(50) for meter in ("a1", "b2")]
    path.write_text("\n".join(["time,meter,region,kwh", *rows]))
    sketch = sketch_file(path)
    assert (sketch.series, sketch.target) == ("meter", "kwh")
    assert sketch.columns[0].is_sum
    assert step_of(sketch) == HOUR


def test_series__of_numbers_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    rows = [f"{JULY + hour * HOUR},{meter},{hour}.5" for hour in range(50) for meter in (7, 8)]
    path.write_text("\n".join(["time,meter_id,kw", *rows]))
    sketch = sketch_file(path)
    assert (sketch.series, [column.source for column in sketch.columns]) == ("meter_id", ["kw"])


def test_register__is_what_climbs(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(0, 2, 200).cumsum()
    path = write(tmp_path, "time,total_kwh,kw", lambda time, hour: f"{time},{noise[hour]:.2f},{hour % 7}.5", hours=200)
    registers = {column.name: column.is_register for column in sketch_file(path).columns}
    assert registers == {"total_kwh": True, "kw": False}


def test_target__is_the_one_that_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "time,temp_c,load_mw,other", lambda time, hour: f"{time},{hour}.1,{hour}.2,{hour}.3")
    assert sketch_file(path).target == "load_mw"
    assert [column.source for column in sketch_file(path, target="other").columns] == ["other", "temp_c", "load_mw"]
    with pytest.raises(DataError, match="'loda' is no column of numbers; these are: 'temp_c', 'load_mw', 'other'"):
        sketch_file(path, target="loda")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("time,kw\nyesterday,1\ntoday,2\n", r"no column holds times in a form that is known here.*yesterday"),
        ("time,state\n2024-07-01 00:00,on\n2024-07-01 01:00,off\n", "no column holds numbers; it has 'time', 'state'"),
        (
            "2024-07-01 00:00,1.5\n2024-07-01 01:00,2.5\n",
            "its first line holds numbers; a header with",
        ),
        ("nothing\nhere\n", "is no table: no separator of"),
        ("", "is no table: no separator of"),
    ],
)
@pytest.mark.bad_input
def test_sketch__refuses_with_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        sketch_file(path)


def test_files__are_those_of_a_folder_or_a_glob(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "notes.md"):
        write(tmp_path, "time,kw", lambda time, hour: f"{time},{hour}.5", name=name)
    pattern, files = files_of(str(tmp_path))
    assert (pattern, [file.name for file in files]) == (str(tmp_path / "*.csv"), ["a.csv", "b.csv"])
    assert files_of(str(tmp_path / "b.*"))[1] == [tmp_path / "b.csv"]
    with pytest.raises(DataError, match=r"no file matches .*nowhere"):
        files_of(str(tmp_path / "nowhere.csv"))


def test_are_series__where_two_files_hold_the_same_times(tmp_path: Path) -> None:
    one, other = (write(tmp_path, "time,kw", lambda time, hour: f"{time},{hour}.5", name=name) for name in ("a", "b"))
    later = write(tmp_path, "time,kw", lambda time, hour: f"{time + 200 * HOUR},{hour}.5", name="c")
    first, second, third = (sketch_file(path) for path in (one, other, later))
    assert are_series(first, second)
    assert not are_series(first, third)
    zoned = write(tmp_path, "time,kw", lambda time, hour: f"{time:%Y-%m-%dT%H:%M:%S}Z,{hour}.5", name="d")
    assert not are_series(first, sketch_file(zoned)), "one with offsets, one without"


def year(zone: str) -> list[str]:
    """A year's hours as the clock of a zone shows them."""
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return [f"{(start + hour * HOUR).astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}" for hour in range(366 * 24)]


@pytest.mark.parametrize(
    ("zone", "clue"),
    [
        ("Europe/Madrid", "jumps in spring and autumn like that of Europe/Paris"),
        ("Europe/Lisbon", "jumps in spring and autumn like that of Europe/London"),
        ("America/Chicago", "jumps in spring and autumn like that of America/New_York"),
        ("Etc/GMT-1", "rows in hours that clocks in Europe and America skip: UTC, or a fixed offset"),
    ],
)
def test_clock__shows_where_it_jumps(zone: str, clue: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("\n".join(["time,kw", *(f"{time},{place % 24}.5" for place, time in enumerate(year(zone)))]))
    assert clue in clock_clue(sketch_file(path))


def test_clock__of_a_few_days_or_with_an_offset(tmp_path: Path) -> None:
    few = write(tmp_path, "time,kw", lambda time, hour: f"{time},{hour}.5")
    assert clock_clue(sketch_file(few)) == "No change of the clock shows in its times."
    zoned = write(tmp_path, "time,kw", lambda time, hour: f"{time:%Y-%m-%dT%H:%M:%S}+02:00,{hour}.5")
    assert clock_clue(sketch_file(zoned)).startswith("Its times have an offset")


def test_report__counts_gaps_and_flat_runs(tmp_path: Path) -> None:
    def row(time: dt.datetime, hour: int) -> str:
        later = time + (5 * HOUR if hour >= 300 else 0 * HOUR)
        return f"{later},{7 if 100 <= hour < 130 else 10 + (hour % 24) + hour % 7 / 10}"

    sketch = sketch_file(write(tmp_path, "time,kw", row, hours=600))
    lines = "\n".join(report_lines(sketch, step_of(sketch)))
    assert "600 rows from 2024-07-01 00:00:00 to 2024-07-26 04:00:00" in lines
    assert "5 steps of 1:00:00 are missing (0.83%); the longest gap, 5:00:00, ends at 2024-07-13 17:00:00" in lines
    assert "the longest run of one value, 7, is 1 day, 6:00:00 from 2024-07-05 04:00:00 on" in lines
    assert "kw by hour of the day, 0 to 23: " in lines
    assert "a day before " in lines


def test_report__says_how_much_lies_within_hours(tmp_path: Path) -> None:
    quarters = [f"{JULY + place * HOUR / 4},{place // 4 % 24 + (place % 4 - 1.5)}" for place in range(4 * 400)]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(["time,kw", *quarters]))
    sketch = sketch_file(path)
    assert step_of(sketch) == HOUR / 4
    assert "3% of its variance lies within hours" in report_lines(sketch, step_of(sketch))[-1]


def test_step__that_does_not_divide_an_hour_is_none(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("\n".join(["time,kw", *(f"{JULY + place * 7 * HOUR / 60},{place}.5" for place in range(50))]))
    assert step_of(sketch_file(path)) is None


@pytest.mark.parametrize("every", [6 * HOUR, 24 * HOUR])
def test_report__of_steps_longer_than_an_hour(tmp_path: Path, every: dt.timedelta) -> None:
    path = tmp_path / "m.csv"
    rows = [f"{JULY + place * every},{10 + 3 * ((JULY + place * every).weekday() >= 5)}" for place in range(200)]
    path.write_text("\n".join(["time,kw", *rows]))
    sketch = sketch_file(path)
    assert step_of(sketch) == every
    text = "\n".join(report_lines(sketch, every))
    assert ("by hour of the day" in text) is (every < 24 * HOUR)
    assert "Monday to Sunday: ▁▁▁▁▁██" in text
    what = "a day's" if every == 24 * HOUR else "the 6 hours'"
    assert f"taken for {what} value, another misses by, relative to the mean of all: a day before" in text
    assert text.endswith("a week before 0%")
    assert "an hour before" not in text
