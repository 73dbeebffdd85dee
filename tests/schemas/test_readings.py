import os
import subprocess
import sys

import pandera.polars as pa
import polars as pl
import pytest

from schemas.readings import find_breaches, key_schema, value_schema
from schemas.student import student_schema
from tests.tutelage.data.builders import HOUR, MINUTE, REPOSITORY, START, meter, table_of
from tutelage.errors import DataError

SPEC = meter()  # repeated after 5 minutes, frozen from 3 minutes on
UNHURT = table_of(SPEC, [1, 2, 3, 4])


def broken(table: pl.DataFrame, schema: pa.DataFrameSchema) -> dict[tuple[str, str | None], list[int]]:
    """The rows that break each rule, by rule and column."""
    found = find_breaches(table, schema, "readings")
    assert all(len(breach.broken) == table.height for breach in found)
    return {(breach.rule, breach.column): breach.broken.arg_true().to_list() for breach in found}


@pytest.mark.bad_input
def test_key_schema__finds_the_broken_rows_of_each_rule() -> None:
    offsets = [0, None, 1, 0.5, 1, 2, None, 2]
    times = [None if offset is None else START + offset * MINUTE for offset in offsets]
    assert broken(table_of(SPEC, [99] * 8, times=times), key_schema(SPEC)) == {
        ("unreadable_time", None): [1, 6],
        ("off_grid_time", None): [3],
        ("duplicate_time", None): [4, 7],
    }


@pytest.mark.bad_input
def test_value_schema__finds_the_broken_rows_of_each_rule() -> None:
    power = [1, 2, 3, 4, 16, 1, 7, 7, 7, 7, None, -1]
    volts = [230, 230, 230, 230, 199, 230, 230, 230, 230, 230, None, 261]
    assert broken(table_of(SPEC, power, voltage_v=volts), value_schema(SPEC)) == {
        ("out_of_range", "power_kw"): [4, 11],
        ("out_of_range", "voltage_v"): [4, 11],
        ("repeated", None): [5],
        ("frozen", None): [7, 8, 9],
    }


def test_schemas__the_order_of_columns_in_a_spec_means_nothing() -> None:
    turned = SPEC.model_copy(update={"columns": SPEC.columns[::-1]})
    table = table_of(turned, [1, 2, 3, 4])
    assert broken(table, key_schema(turned)) == broken(table, value_schema(turned)) == {}


@pytest.mark.parametrize("schema", [key_schema(SPEC), value_schema(SPEC)], ids=["key", "value"])
def test_find_breaches__nothing_wrong_is_nothing_found(schema: pa.DataFrameSchema) -> None:
    assert broken(UNHURT, schema) == {}


@pytest.mark.parametrize("schema", [key_schema(SPEC), value_schema(SPEC)], ids=["key", "value"])
@pytest.mark.parametrize(
    ("table", "named"),
    [
        (UNHURT.with_columns(pl.col("power_kw").cast(pl.String)), "power_kw"),
        (UNHURT.with_columns(pl.col("voltage_v").cast(pl.Float32)), "voltage_v"),
        (UNHURT.with_columns(pl.col("time_utc").dt.replace_time_zone(None)), "time_utc"),
        (UNHURT.with_columns(pl.lit(None, pl.String).alias("series_id")), "series_id"),
        (UNHURT.drop("voltage_v"), "voltage_v"),
        (UNHURT.with_columns(colour=pl.lit("red")), "colour"),
        (UNHURT.select(UNHURT.columns[::-1]), "voltage_v"),
        (UNHURT.clear(), "there are no rows"),
    ],
    ids=["text", "float32", "no zone", "no series", "missing column", "unknown column", "other order", "empty"],
)
@pytest.mark.bad_input
def test_find_breaches__another_table_is_refused(table: pl.DataFrame, named: str, schema: pa.DataFrameSchema) -> None:
    with pytest.raises(DataError, match=f"^readings: .*{named}"):
        find_breaches(table, schema, "readings")


@pytest.mark.parametrize("switch", ["PANDERA_VALIDATION_ENABLED=False", "PANDERA_VALIDATION_DEPTH=SCHEMA_ONLY"])
def test_find_breaches__environment_can_not_turn_it_off(switch: str) -> None:
    script = """if True:
        from schemas.readings import find_breaches, key_schema, value_schema
        from tests.tutelage.data.builders import START, meter, table_of
        spec = meter()
        keys = find_breaches(table_of(spec, [1, 2], times=[START, START]), key_schema(spec), "readings")
        values = find_breaches(table_of(spec, [1, 99]), value_schema(spec), "readings")
        print(*(f"{b.rule} {b.broken.arg_true().to_list()}" for b in keys + values), sep="; ")
    """
    name, value = switch.split("=")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "duplicate_time [1]; out_of_range [1]\n", done.stderr


@pytest.mark.bad_input
def test_hourly_schema__finds_keys_that_stand_twice_and_times_off_the_hour() -> None:
    times = [START, START + HOUR, START + 2.5 * HOUR, START + HOUR]
    hours = table_of(SPEC, [1, None, 3, 4], times=times)
    found = find_breaches(hours.head(3), student_schema(SPEC), "hours")
    assert [(b.rule, b.column, b.broken.to_list()) for b in found] == [("full_step", "time_utc", [False, False, True])]
    with pytest.raises(DataError, match=r"hours: .*series_id.*time_utc.*not unique"):
        find_breaches(hours, student_schema(SPEC), "hours")
    assert find_breaches(hours.head(2), student_schema(SPEC), "hours") == []
