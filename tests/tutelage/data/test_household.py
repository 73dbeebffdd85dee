"""The real file, whole: what docs and model cards say of it is counted here."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from tests.tutelage.data.builders import REPOSITORY
from tutelage.data import quality
from tutelage.data.dataset import KEY, DatasetSpec, load_dataset_spec
from tutelage.data.quality import clean, masked, regular_grid
from tutelage.data.readings import read_readings
from tutelage.data.resample import student_table
from tutelage.data.source import source_files

SPEC_PATH = REPOSITORY / "deployments" / "datasets" / "household.yaml"
RECORDER = dt.timezone(dt.timedelta(hours=1))  # the clock that the file's times are of


@dataclass(frozen=True)
class Household:
    """The readings, their grid with one flag a rule, and the runs of flagged rows."""

    spec: DatasetSpec
    readings: pl.DataFrame
    grid: pl.DataFrame

    def runs(self, rule: str) -> pl.DataFrame:
        """Runs of consecutive rows that break a rule: (first, rows), the longest first."""
        runs = self.grid.select("time_utc", rule, run=pl.col(rule).rle_id()).filter(pl.col(rule)).group_by("run")
        return runs.agg(first=pl.col("time_utc").min(), rows=pl.len()).sort("rows", descending=True)


@pytest.fixture(scope="module")
def household() -> Household:
    spec = load_dataset_spec(SPEC_PATH)
    readings = read_readings(source_files(spec.source), spec)
    grid = regular_grid(readings.sort(KEY), spec)
    flags = {"repeated": quality.repeated(spec), "frozen": quality.frozen(spec)}
    return Household(spec, readings, grid.with_columns(**flags))


def local(*clock: int) -> dt.datetime:
    return dt.datetime(*clock, tzinfo=RECORDER)


def test_household__has_every_minute_once(household: Household) -> None:
    readings = household.readings
    assert readings.height == household.grid.height == 2_075_259
    assert readings["time_utc"].min() == local(2006, 12, 16, 17, 24)
    assert readings["time_utc"].max() == local(2010, 11, 26, 21, 2)
    assert sum(readings.null_count().row(0)) == 0
    broken = readings.select(
        unreadable=quality.unreadable_time(),
        off_grid=quality.off_grid_time(household.spec),
        duplicate=quality.duplicate_time(household.spec),
    )
    assert broken.sum().row(0) == (0, 0, 0)


def test_household__has_nothing_out_of_range(household: Household) -> None:
    ranges = [quality.out_of_range(c.name, c.minimum, c.maximum).sum().alias(c.name) for c in household.spec.columns]
    assert household.grid.select(ranges).row(0) == (0,) * 7


def test_household__repeats_25897_minutes_in_runs_of_twenty_or_more(household: Household) -> None:
    runs = household.runs("repeated")
    assert runs["rows"].sum() == 25_897
    assert runs.filter(pl.col("rows") >= 60)["rows"].sum() == 25_691
    assert runs.select("first", "rows").row(0) == (local(2010, 8, 17, 21, 2), 7_226)


def test_household__repeats_26001_rows_in_all_columns_and_the_rule_marks_no_other(household: Household) -> None:
    names = household.spec.names()
    in_all = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1440) for name in names).fill_null(False)
    grid = household.grid.with_columns(in_all=in_all)
    assert grid["in_all"].sum() == 26_001
    assert grid.filter(pl.col("repeated") & ~pl.col("in_all")).is_empty()


def test_household__froze_once_for_399_minutes(household: Household) -> None:
    [run] = household.runs("frozen").iter_rows(named=True)
    # Another minute than in all columns, in which it is 399: the power stays for one more.
    assert (run["first"], run["rows"]) == (local(2008, 10, 6, 10, 10), 400)


def test_household__masks_all_that_is_repeated_or_frozen(household: Household) -> None:
    table = masked(household.grid, household.spec)
    bad = household.grid["repeated"] | household.grid["frozen"]
    for name in household.spec.names():
        assert (table[name].is_null() == bad).all()


def write_uci_form(household: Household, folder: Path, first: dt.datetime, end: dt.datetime) -> DatasetSpec:
    """A part of the file as the UCI repository gives it: `;` between, day first, `?` where the package filled in."""
    part = household.grid.filter(pl.col("time_utc").is_between(first, end, closed="left"))
    clock = pl.col("time_utc").dt.convert_time_zone(household.spec.timestamp.timezone)
    values = [
        pl.when("repeated").then(pl.lit("?")).otherwise(pl.col(c.name).cast(pl.String)).alias(c.source)
        for c in household.spec.columns
    ]
    date, time = clock.dt.strftime("%d/%m/%Y").alias("Date"), clock.dt.strftime("%H:%M:%S").alias("Time")
    text = part.select(date, time, *values)
    text.write_csv(folder / "household_power_consumption.txt", separator=";")
    content = yaml.safe_load(SPEC_PATH.read_text(encoding="utf-8"))
    content["source"] = {"path": f"{folder}/*.txt", "separator": ";", "null_values": ["?"]}
    content["timestamp"] |= {"columns": ["Date", "Time"], "format": "%d/%m/%Y %H:%M:%S"}
    (folder / "household.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_dataset_spec(folder / "household.yaml")


def test_household__and_its_original_form_give_the_same_hours(household: Household, tmp_path: Path) -> None:
    first, end = local(2010, 7, 25), local(2010, 9, 3)
    spec = write_uci_form(household, tmp_path, first, end)
    original = student_table(clean(read_readings(source_files(spec.source), spec), spec), spec)
    shipped = student_table(masked(household.grid, household.spec), household.spec)
    both = original.join(shipped, on=KEY, suffix="_shipped", how="left", maintain_order="left")
    assert both.height == 40 * 24
    for name in spec.names():
        observed = both.filter(pl.col(name).is_not_null() & pl.col(f"{name}_shipped").is_not_null())
        assert observed.height > 800
        assert_frame_equal(observed.select(name), observed.select(pl.col(f"{name}_shipped").alias(name)))
    outage = pl.col("time_utc").is_between(local(2010, 8, 18), local(2010, 8, 22))
    assert both.filter(outage).select(spec.names()).null_count().row(0) == (97,) * 7
