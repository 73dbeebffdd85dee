import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.tutelage.data.builders import METER, START, meter
from tutelage.data.dataset import DatasetSpec
from tutelage.data.readings import read_readings
from tutelage.errors import DataError

PARIS = {"columns": ["time"], "timezone": "Europe/Paris"}
HALF_HOURS = {"timestamp": PARIS, "raw_step": "PT30M"}


def write_csv(folder: Path, *rows: str, header: str = "time,power,indoor,volts") -> Path:
    path = folder / "meter.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def read_clock(folder: Path, clock: list[str], spec: DatasetSpec) -> list[dt.datetime | None]:
    """The UTC times of rows that a local clock wrote."""
    path = write_csv(folder, *(f"{time}:00,1,20,230" for time in clock))
    return read_readings([path], spec)["time_utc"].to_list()


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def expected_table() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "series_id": ["meter", "meter"],
            "time_utc": [START, START + dt.timedelta(minutes=1)],
            "power_kw": [1.5, None],
            "indoor_c": [20.0, 21.0],
            "voltage_v": [None, 230.0],
        },
        schema_overrides={"time_utc": pl.Datetime("us", "UTC"), "power_kw": pl.Float64, "voltage_v": pl.Float64},
    )


def test_read__csv_with_one_time_column(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "2024-07-01 00:00:00,1.5,20,", "2024-07-01 00:01:00,,21,230")
    assert_frame_equal(read_readings([path], meter()), expected_table())


def test_read__csv_with_date_and_time_columns(tmp_path: Path) -> None:
    spec = meter(
        source__separator=";",
        source__null_values=["?"],
        timestamp={"columns": ["Date", "Time"], "format": "%d/%m/%Y %H:%M:%S", "timezone": "Etc/GMT-1"},
    )
    rows = "1/7/2024;01:00:00;1.5;20;?", "1/7/2024;01:01:00; ?;21;230"
    path = write_csv(tmp_path, *rows, header="Date;Time;power;indoor;volts")
    assert_frame_equal(read_readings([path], spec), expected_table())


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_read__parquet_in_the_zone_of_its_time_column(zone: str | None, tmp_path: Path) -> None:
    time = pl.col("time_utc").dt.convert_time_zone(zone) if zone else pl.col("time_utc").dt.replace_time_zone(None)
    source = expected_table().select(time=time, power="power_kw", indoor="indoor_c", volts="voltage_v")
    source.write_parquet(tmp_path / "meter.parquet")
    spec = meter(source__format="parquet")
    assert_frame_equal(read_readings([tmp_path / "meter.parquet"], spec), expected_table())


@pytest.mark.bad_input
def test_read__missing_column_names_file_and_column(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "2024-07-01 00:00:00,1,230", header="time,power,volts")
    with pytest.raises(
        DataError, match=r"^meter\.csv: column 'indoor' is missing; the file has 'time', 'power', 'volts'$"
    ):
        read_readings([path], meter())


@pytest.mark.parametrize(
    ("column", "values"),
    [("power", [True, False]), ("power", [[1.0], [2.0]]), ("time", [1, 2])],
    ids=["flags", "lists", "a time of numbers"],
)
@pytest.mark.bad_input
def test_read__wrong_type_names_file_and_column(column: str, values: list[Any], tmp_path: Path) -> None:
    source = {"time": [START, START], "power": [1.0, 2.0], "indoor": [20.0, 20.0], "volts": [230.0, 230.0]}
    pl.DataFrame(source | {column: values}).write_parquet(tmp_path / "meter.parquet")
    with pytest.raises(DataError, match=rf"^meter\.parquet: column '{column}' holds "):
        read_readings([tmp_path / "meter.parquet"], meter(source__format="parquet"))


@pytest.mark.parametrize("content", ["", "time,power,indoor,volts\n"], ids=["empty", "header alone"])
@pytest.mark.bad_input
def test_read__file_without_rows_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"meter\.csv"):
        read_readings([path], meter())


@pytest.mark.parametrize(
    ("text", "value"), [(" 2.5 ", 2.5), ("-1e-1", -0.1), ("n/a", None), ("1,5", None), ("nan", None), ("inf", None)]
)
@pytest.mark.bad_input
def test_read__text_that_is_no_number_becomes_null(text: str, value: float | None, tmp_path: Path) -> None:
    path = write_csv(tmp_path, f'2024-07-01 00:00:00,"{text}",20,230')
    assert read_readings([path], meter())["power_kw"].to_list() == [value]


@pytest.mark.parametrize(
    "time", ["2024-07-01", "01/07/2024 00:01:00", "2024-02-30 00:01:00", "2024-07-01 24:01:00", ""]
)
@pytest.mark.bad_input
def test_read__unreadable_time_becomes_null(time: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path, "2024-07-01 00:00:00,1,20,230", f"{time},2,20,230")
    table = read_readings([path], meter())
    assert table["time_utc"].to_list() == [START, None]
    assert table["power_kw"].to_list() == [1.0, 2.0]


@pytest.mark.bad_input
def test_read__no_readable_time_at_all_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "1/7/2024 00:00,1,20,230", "1/7/2024 00:01,1,20,230")
    with pytest.raises(DataError, match=r"meter\.csv.*time"):
        read_readings([path], meter())


@pytest.mark.parametrize(
    ("as_of", "last_minute"), [("00:03:00", 2), ("00:03:30", 2), ("00:03:59", 2), ("00:04:00", 3), ("09:00:00", 4)]
)
def test_read__as_of_leaves_out_what_was_not_complete(as_of: str, last_minute: int, tmp_path: Path) -> None:
    path = write_csv(tmp_path, *(f"2024-07-01 00:0{minute}:00,1,20,230" for minute in range(5)))
    table = read_readings([path], meter(), as_of=utc(f"2024-07-01 {as_of}"))
    assert table["time_utc"].to_list() == [START + dt.timedelta(minutes=m) for m in range(last_minute + 1)]


def test_read__as_of_on_another_clock_is_the_same_moment(tmp_path: Path) -> None:
    path = write_csv(tmp_path, *(f"2024-07-01 00:0{minute}:00,1,20,230" for minute in range(5)))
    tokyo = dt.datetime(2024, 7, 1, 9, 3, tzinfo=dt.timezone(dt.timedelta(hours=9)))
    assert read_readings([path], meter(), as_of=tokyo).height == 3


@pytest.mark.bad_input
def test_read__as_of_before_all_readings_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "2024-07-01 00:00:00,1,20,230")
    with pytest.raises(DataError, match=r"^meter\.csv: no reading up to 2024-07-01 00:00:59"):
        read_readings([path], meter(), as_of=utc("2024-07-01 00:00:59"))


def test_read__series_column(tmp_path: Path) -> None:
    rows = "7,2024-07-01 00:00:00,1,20,230", "8,2024-07-01 00:00:00,2,20,230"
    path = write_csv(tmp_path, *rows, header="home,time,power,indoor,volts")
    table = read_readings([path], DatasetSpec.model_validate(METER | {"series_column": "home"}))
    assert table.select("series_id", "power_kw").rows() == [("7", 1.0), ("8", 2.0)]


@pytest.mark.bad_input
def test_clock__autumn_hour_that_occurs_twice_is_two_hours(tmp_path: Path) -> None:
    twice = ["2024-10-27 02:00", "2024-10-27 02:30"]
    times = read_clock(tmp_path, ["2024-10-27 01:30", *twice, *twice, "2024-10-27 03:00"], meter(**HALF_HOURS))
    first = utc("2024-10-26 23:30")
    assert times == [first + i * dt.timedelta(minutes=30) for i in range(6)]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.bad_input
def test_clock__that_goes_back_by_half_an_hour_gives_hourly_rows_their_hour(newest_first: bool, tmp_path: Path) -> None:
    """On Lord Howe, 15:00 UTC is 01:30 for the second time; the first time lies between two readings."""
    clock = ["2024-04-07 00:00", "2024-04-07 01:00", "2024-04-07 01:30", "2024-04-07 02:30"]
    spec = meter(raw_step="PT1H", timestamp={**PARIS, "timezone": "Australia/Lord_Howe"})
    times = read_clock(tmp_path, clock[::-1] if newest_first else clock, spec)
    assert [time.hour for time in sorted(times)] == [13, 14, 15, 16]


@pytest.mark.bad_input
def test_clock__autumn_hour_is_resolved_series_by_series(tmp_path: Path) -> None:
    rows = [f"{home},2024-10-27 02:00:00,1,20,230" for home in "abab"]
    path = write_csv(tmp_path, *rows, header="home,time,power,indoor,volts")
    table = read_readings([path], meter(timestamp=PARIS, raw_step="PT1H", series_column="home"))
    assert table["time_utc"].dt.hour().to_list() == [0, 0, 1, 1]


@pytest.mark.bad_input
def test_clock__spring_hour_that_does_not_exist_is_null(tmp_path: Path) -> None:
    clock = ["2024-03-31 01:30", "2024-03-31 02:00", "2024-03-31 02:30", "2024-03-31 03:00"]
    expected = [utc("2024-03-31 00:30"), None, None, utc("2024-03-31 01:00")]
    assert read_clock(tmp_path, clock, meter(**HALF_HOURS)) == expected


@pytest.mark.parametrize(
    ("day", "hours", "midnight"),
    [
        ("2024-03-31", [0, 1, *range(3, 24)], "2024-03-30 23:00"),
        ("2024-10-27", [0, 1, 2, *range(2, 24)], "2024-10-26 22:00"),
        ("2024-07-01", list(range(24)), "2024-06-30 22:00"),
    ],
)
def test_clock__local_days_of_23_and_25_hours(day: str, hours: list[int], midnight: str, tmp_path: Path) -> None:
    times = read_clock(tmp_path, [f"{day} {hour:02}:00" for hour in hours], meter(timestamp=PARIS, raw_step="PT1H"))
    assert times == [utc(midnight) + i * dt.timedelta(hours=1) for i in range(len(hours))]


# Files that people have: see docs/datasets.md.


def offsets(**changes: Any) -> DatasetSpec:
    timestamp = {"columns": ["time"], "format": "%Y-%m-%dT%H:%M:%S%z", "timezone": "Europe/Paris"}
    return meter(timestamp=timestamp, raw_step="PT1H", **changes)


@pytest.mark.bad_input
def test_offset__is_converted_and_never_localised_again(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "2024-07-01T00:00:00+02:00,1,20,230", "2024-07-01T00:00:00+0100,2,20,230")
    assert read_readings([path], offsets())["time_utc"].to_list() == [utc("2024-06-30 22:00"), utc("2024-06-30 23:00")]
    path = write_csv(tmp_path, "2024-07-01T00:00:00Z,1,20,230")
    assert read_readings([path], offsets())["time_utc"].to_list() == [START]


@pytest.mark.bad_input
def test_offset__an_autumn_day_has_25_hours(tmp_path: Path) -> None:
    summer = [f"2024-10-27T{hour:02}:00:00+02:00" for hour in range(3)]
    winter = [f"2024-10-27T{hour:02}:00:00+01:00" for hour in range(2, 24)]
    path = write_csv(tmp_path, *(f"{time},1,20,230" for time in summer + winter))
    times = read_readings([path], offsets())["time_utc"]
    assert times.n_unique() == 25
    assert times.is_sorted()


@pytest.mark.bad_input
def test_offset__that_the_format_does_not_have_is_refused_with_the_text(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "2024-07-01T00:00:00+02:00,1,20,230")
    with pytest.raises(DataError, match=r"has no time in the format %Y.*, but '2024-07-01T00:00:00\+02:00'$"):
        read_readings([path], meter())


@pytest.mark.parametrize("missing", [None, 0])
def test_parquet__aware_times_never_pass_through_local_time(missing: int | None, tmp_path: Path) -> None:
    times = [dt.datetime(2024, 10, 27, hour, tzinfo=dt.UTC) for hour in (2, 1, 0) if hour != missing]
    rows = {"time": times, "power": [time.hour + 1.0 for time in times]}
    table = pl.DataFrame(rows | {"indoor": [20.0] * len(times), "volts": [230.0] * len(times)})
    table.cast({"time": pl.Datetime("ns", "UTC")}).write_parquet(tmp_path / "meter.parquet")
    spec = meter(source__format="parquet", timestamp=PARIS, raw_step="PT1H")
    read = read_readings([tmp_path / "meter.parquet"], spec)
    assert read.select("time_utc", "power_kw").rows() == list(zip(times, table["power"], strict=True))


@pytest.mark.bad_input
def test_clock__newest_first(tmp_path: Path) -> None:
    rows = [f"2024-10-27 {hour}:00:00,{power},20,230" for hour, power in (("03", 4), ("02", 3), ("02", 2), ("01", 1))]
    table = read_readings([write_csv(tmp_path, *rows)], meter(timestamp=PARIS, raw_step="PT1H")).sort("time_utc")
    assert table["power_kw"].to_list() == [1, 2, 3, 4]
    assert table["time_utc"][0] == utc("2024-10-26 23:00")
    assert (table["time_utc"].diff().drop_nulls() == dt.timedelta(hours=1)).all()


@pytest.mark.bad_input
def test_clock__one_pass_is_summer_time_also_with_the_newest_row_first(tmp_path: Path) -> None:
    clock = ["2024-10-27 02:30", "2024-10-27 02:00", "2024-10-27 01:30", "2024-10-27 01:00"]
    times = read_clock(tmp_path, clock, meter(**HALF_HOURS))
    assert times == [utc("2024-10-27 00:30") - place * dt.timedelta(minutes=30) for place in range(4)]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.bad_input
def test_clock__the_first_pass_lost_a_row(newest_first: bool, tmp_path: Path) -> None:
    passes = ["01:30", "01:45", "02:00", "02:15", "02:45", "02:00", "02:15", "02:30", "02:45", "03:00", "03:15"]
    expected = [*range(2), 2, 3, 5, *range(6, 10), 10, 11]
    clock = [f"2024-10-27 {time}" for time in passes]
    if newest_first:
        clock, expected = clock[::-1], expected[::-1]
    times = read_clock(tmp_path, clock, meter(timestamp=PARIS, raw_step="PT15M"))
    assert times == [utc("2024-10-26 23:30") + place * dt.timedelta(minutes=15) for place in expected]


@pytest.mark.bad_input
def test_clock__stamps_at_the_end_and_midnight_as_24(tmp_path: Path) -> None:
    timestamp = {"columns": ["time"], "format": "%Y-%m-%d %H:%M", "timezone": "UTC", "marks": "end"}
    quarters = [f"{minute // 60:02}:{minute % 60:02}" for minute in range(15, 24 * 60 + 1, 15)]
    path = write_csv(tmp_path, *(f"2024-07-01 {time},1,20,230" for time in quarters))
    times = read_readings([path], meter(timestamp=timestamp, raw_step="PT15M"))["time_utc"].to_list()
    assert quarters[-1] == "24:00"
    assert times == [START + place * dt.timedelta(minutes=15) for place in range(96)]


@pytest.mark.bad_input
def test_clock__24_minutes_past_is_no_midnight(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "2024-07-01 00:24:00,1,20,230", "2024-07-01 24:00:00,2,20,230")
    assert read_readings([path], meter())["time_utc"].to_list() == [utc("2024-07-01 00:24"), utc("2024-07-02 00:00")]


@pytest.mark.parametrize("lonely", ["2099-01-01 00:00:00", "1970-01-01 00:00:00", "9999-12-31 23:00:00"])
@pytest.mark.bad_input
def test_clock__a_time_years_away_is_refused_before_a_grid_is_built(lonely: str, tmp_path: Path) -> None:
    rows = [f"2024-07-{day:02} {hour:02}:00:00,1,20,230" for day in range(1, 31) for hour in range(24)]
    path = write_csv(tmp_path, *rows, f"{lonely},1,20,230")
    with pytest.raises(DataError, match=rf"meter\.csv: 1 of 721 times of series meter, such as {lonely[:16]} UTC"):
        read_readings([path], meter(raw_step="PT1H"))


@pytest.mark.bad_input
def test_clock__files_with_and_without_a_zone_are_refused(tmp_path: Path) -> None:
    for name, zone in (("a", None), ("b", "UTC")):
        time = pl.col("time_utc").dt.replace_time_zone(zone)
        source = expected_table().select(time=time, power="power_kw", indoor="indoor_c", volts="voltage_v")
        source.write_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"the times of b\.parquet have a zone, those of a\.parquet have none"):
        read_readings([tmp_path / "a.parquet", tmp_path / "b.parquet"], meter(source__format="parquet"))


@pytest.mark.parametrize(
    ("text", "marks", "value"),
    [
        ("1,5", {"decimal": ","}, 1.5),
        ("1.234,5", {"decimal": ",", "thousands": "."}, 1234.5),
        ("1 234", {"thousands": " "}, 1234.0),
        ("12,34,567.5", {"thousands": ","}, 1234567.5),
        ("-1,234", {"thousands": ","}, -1234.0),
        ("1,2,3", {"thousands": ","}, None),
        ("1,23", {"thousands": ","}, None),
        ("1.5,234", {"thousands": ","}, None),
        ("1.5", {"decimal": ","}, None),
        ("1,5", {}, None),
    ],
)
@pytest.mark.bad_input
def test_numbers__with_the_specs_marks(text: str, marks: dict[str, str], value: float | None, tmp_path: Path) -> None:
    path = write_csv(tmp_path, f"2024-07-01 00:00:00;{text};20;230", header="time;power;indoor;volts")
    spec = meter(source={"path": "meter.csv", "separator": ";"} | marks, columns__0__maximum=9999)
    assert read_readings([path], spec)["power_kw"].to_list() == [value]


@pytest.mark.bad_input
def test_numbers__a_column_of_other_texts_is_refused_with_three_of_them(tmp_path: Path) -> None:
    rows = [f"2024-07-01 00:{minute:02}:00;{minute},5;20;230" for minute in range(12)]
    path = write_csv(tmp_path, *rows, header="time;power;indoor;volts")
    with pytest.raises(
        DataError, match=r"column 'power' holds texts that are no numbers, such as '0,5', '1,5', '2,5'; "
    ):
        read_readings([path], meter(source={"path": "meter.csv", "separator": ";"}))


@pytest.mark.bad_input
def test_file__with_an_encoding_lines_before_the_header_and_comments(tmp_path: Path) -> None:
    lines = "Stadtwerke\nexport of July\ntime,Leistung für kW,indoor,volts\n2024-07-01 00:00:00,1.5,20,230\n# end\n"
    path = tmp_path / "meter.csv"
    path.write_bytes(lines.encode("iso-8859-1"))
    source = {"path": "meter.csv", "skip_lines": 2, "comment": "#"}
    column = METER["columns"][0] | {"source": "Leistung für kW"}
    columns = [column, *METER["columns"][1:]]
    assert read_readings([path], meter(source=source | {"encoding": "latin-1"}, columns=columns)).height == 1
    with pytest.raises(DataError, match=r"meter\.csv"):
        read_readings([path], meter(source=source, columns=columns))


@pytest.mark.bad_input
def test_file__a_header_that_nearly_matches_and_one_that_is_doubled(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "2024-07-01 00:00:00,1,20,230", header="time,power ,indoor,volts")
    with pytest.raises(DataError, match=r"column 'power' is missing; .*; did you mean 'power '\?$"):
        read_readings([path], meter())
    path = write_csv(tmp_path, "2024-07-01 00:00:00,1,2,20,230", header="time,power,power,indoor,volts")
    with pytest.raises(DataError, match=r"column 'power' occurs twice in the header"):
        read_readings([path], meter())
