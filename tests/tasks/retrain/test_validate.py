import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from schemas.retrain import ReadingsManifest, RuleCount, ValidatedManifest
from tasks.retrain.validate import validate
from tests.runtime.builders import Published
from tests.tutelage.data.builders import MINUTE, START, meter, meter_with_plan, plan_after, random_readings, table_of
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import DataError, QualityError
from tutelage.files import file_digest, write_table

RULES = ("unreadable_time", "off_grid_time", "duplicate_time", "missing_row", "missing_value", "out_of_range")
TOLERANT = {f"quality__{name}": {"tolerance": 0.5} for name in RULES}
# One reading a minute, whose fifth is out of range; the eighth comes twice, one lies off the grid, one has no time,
# and the tenth is not there.
OFFSETS = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8.5, None, 10, 11]
POWER = [1, 2, 3, 4, 99, 6, None, 8, 8.1, 9, 9.5, 0.5, 11, 12]


def readings_of(folder: Path, spec: DatasetSpec) -> ReadingsManifest:
    """The readings above, written as ingest writes them."""
    times = [None if offset is None else START + offset * MINUTE for offset in OFFSETS]
    path, digest = write_table(table_of(spec, POWER, times=times), folder)
    return ReadingsManifest(
        path=path, digest=digest, rows=14, series=1, first_utc=START, last_utc=START + 11 * MINUTE, source_files=["a"]
    )


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> ValidatedManifest:
    spec = meter(**TOLERANT, quality__repeated=None, quality__frozen=None)
    return validate.fn(readings_of(tmp_path_factory.mktemp("faulty"), spec), spec)


def counted(validated: ValidatedManifest) -> dict[tuple[str, str | None], RuleCount]:
    return {(rule.rule, rule.column): rule for rule in validated.rules}


def test_validate__writes_a_grid_with_what_is_bad_as_null(faulty: ValidatedManifest) -> None:
    grid = pl.read_parquet(faulty.path)
    assert file_digest(faulty.path) == faulty.digest
    assert grid["time_utc"].to_list() == [START + minute * MINUTE for minute in range(12)]
    assert grid["power_kw"].to_list() == [1, 2, 3, 4, None, 6, None, 8, 9, None, 11, 12]
    assert grid["indoor_c"].null_count() == 1, "a value out of range takes no other column with it"
    assert faulty.rows == grid.height == 12


def test_validate__keeps_what_it_catches_with_its_rule(faulty: ValidatedManifest) -> None:
    caught = pl.read_parquet(faulty.quarantine_path)
    rows = {(row["rule"], row["column"]): row["power_kw"] for row in caught.iter_rows(named=True)}
    assert rows == {
        ("unreadable_time", None): 0.5,
        ("off_grid_time", None): 9.5,
        ("duplicate_time", None): 8.1,
        ("out_of_range", "power_kw"): 99,
    }
    assert faulty.quarantined_rows == caught.height == 4


def test_validate__counts_each_rule(faulty: ValidatedManifest) -> None:
    rules = counted(faulty)
    actions = {name: (rule.rows, rule.action) for name, rule in rules.items()}
    assert actions == {
        ("unreadable_time", None): (1, "quarantined"),
        ("off_grid_time", None): (1, "quarantined"),
        ("duplicate_time", None): (1, "quarantined"),
        ("out_of_range", "power_kw"): (1, "masked"),
        ("missing_row", None): (1, "counted"),
        ("missing_value", "power_kw"): (1, "counted"),
    }
    assert rules["duplicate_time", None].share == pytest.approx(1 / 14)
    assert rules["missing_row", None].share == pytest.approx(1 / 12)
    assert rules["missing_row", None].first_utc == START + 9 * MINUTE
    assert rules["unreadable_time", None].first_utc is None
    assert faulty.count("out_of_range") == 1
    assert faulty.count("frozen") == 0


def test_validate__shows_rules_that_nothing_breaks(validated: ValidatedManifest) -> None:
    rules = counted(validated)
    assert set(rules) == {(name, None) for name in (*RULES, "repeated", "frozen")}
    assert {rule.rows for rule in rules.values()} == {0}
    assert pl.read_parquet(validated.quarantine_path).height == validated.quarantined_rows == 0
    assert pl.read_parquet(validated.quarantine_path).columns[-2:] == ["rule", "column"]


def test_validate__masks_repeated_and_frozen_rows(tmp_path: Path) -> None:
    power = [1, 2, 3, 4, 5, 1, 2, 8, 8, 8, 8, 9]
    spec = meter(quality__repeated={"after": "PT5M", "tolerance": 0.5}, quality__frozen__tolerance=0.5)
    path, digest = write_table(table_of(spec, power), tmp_path)
    end = START + dt.timedelta(minutes=11)
    readings = ReadingsManifest(
        path=path, digest=digest, rows=12, series=1, first_utc=START, last_utc=end, source_files=[]
    )
    validated = validate.fn(readings, spec)
    assert pl.read_parquet(validated.path)["power_kw"].to_list() == [1, 2, 3, 4, 5, None, None, 8, None, None, None, 9]
    assert (validated.count("repeated"), validated.count("frozen")) == (2, 3)


def test_validate__stops_beyond_tolerance_and_shows_why(tmp_path: Path, published: Published) -> None:
    spec = meter(**TOLERANT | {"quality__out_of_range": {"tolerance": 0.01}})
    with pytest.raises(QualityError, match=r"out_of_range +power_kw +1 rows +8\.333% > 1\.000% +from 2024-07-01 00:04"):
        validate.fn(readings_of(tmp_path, spec), spec)
    [((rows,), values)] = published.of("create_table_artifact")
    assert values["key"] == "quality-meter"
    assert {row["rule"] for row in rows} >= {"out_of_range", "duplicate_time", "frozen"}


def test_validate__says_where_the_step_changes(tmp_path: Path, published: Published) -> None:
    spec = meter(**TOLERANT, raw_step="PT1H", quality__repeated=None, quality__frozen=None)
    offsets = [*range(0, 30 * 60, 60), *range(30 * 60, 60 * 60, 15)]
    times = [START + offset * MINUTE for offset in offsets]
    path, digest = write_table(table_of(spec, [1.0] * len(times), times=times), tmp_path)
    readings = readings_of(tmp_path, spec).model_copy(update={"path": path, "digest": digest})
    with pytest.raises(QualityError, match="step changes from 1:00:00 to 0:15:00 at 2024-07-02 06:00 UTC") as error:
        validate.fn(readings, spec)
    advice = "raw_step is 1:00:00: name the change in step_changes, or bring all rows to one step."
    assert str(error.value).endswith(advice)
    assert published.of("create_table_artifact")


@pytest.mark.parametrize(("hours", "minutes", "other"), [("clock", 0, "utc"), ("utc", 30, "clock")])
def test_validate__says_where_hours_begin(hours: str, minutes: int, other: str, tmp_path: Path) -> None:
    timestamp = {"columns": ["time"], "timezone": "Asia/Kolkata", "hours": hours}
    spec = meter(**TOLERANT, raw_step="PT1H", quality__repeated=None, quality__frozen=None, timestamp=timestamp)
    times = [START + minutes * MINUTE + hour * 60 * MINUTE for hour in range(12)]
    path, digest = write_table(table_of(spec, [1.0] * len(times), times=times), tmp_path)
    readings = readings_of(tmp_path, spec).model_copy(update={"path": path, "digest": digest})
    with pytest.raises(QualityError, match=f"Asia/Kolkata at :30 UTC.*say timestamp.hours: {other}"):
        validate.fn(readings, spec)


def test_validate__refuses_a_table_of_other_columns(tmp_path: Path) -> None:
    readings = readings_of(tmp_path, meter())
    with pytest.raises(DataError, match=r"readings: .*planned_c"):
        validate.fn(readings, meter(columns__1__name="planned_c"))


def test_validate__what_is_known_ahead_lacks_no_reading(tmp_path: Path) -> None:
    spec = meter_with_plan()
    readings, ahead = random_readings(spec, days=3), dt.timedelta(days=3)
    path, digest = write_table(pl.concat([readings, plan_after(readings, spec, ahead)]), tmp_path)
    ends = {"first_utc": START, "last_utc": START + ahead}
    manifest = ReadingsManifest(
        path=path, digest=digest, rows=2 * readings.height, series=1, source_files=["a"], **ends
    )
    assert not [rule for rule in validate.fn(manifest, spec).rules if rule.rule == "missing_value" and rule.rows]
