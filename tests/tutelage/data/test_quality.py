import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tests.tutelage.builders import PROPERTY
from tests.tutelage.data.builders import MINUTE, START, meter, table_of
from tutelage.data import quality
from tutelage.data.quality import clean, masked, regular_grid

SPEC = meter()  # repeated after 5 minutes, frozen from 3 minutes on
WITHOUT = meter(quality__repeated=None, quality__frozen=None)


def flags(table: pl.DataFrame, rule: pl.Expr) -> list[int]:
    """The rows that break a rule. A flag is true or false, never null."""
    broken = table.with_columns(broken=rule)["broken"]
    assert broken.null_count() == 0
    return broken.arg_true().to_list()


def minutes(*offsets: float | None) -> list[dt.datetime | None]:
    return [None if offset is None else START + offset * MINUTE for offset in offsets]


# Few values, so that rules are often broken.
POWER = st.lists(st.sampled_from([1.0, 2.0, None, 99.0]), min_size=1, max_size=20)


def two_series(first: list[float | None], second: list[float | None]) -> pl.DataFrame:
    return pl.concat([table_of(SPEC, first), table_of(SPEC, second, series_id="other")])


def test_unreadable_time__is_null_time() -> None:
    assert flags(table_of(SPEC, [1] * 3, times=minutes(0, None, 2)), quality.unreadable_time()) == [1]


def test_off_grid_time__is_no_multiple_of_the_step() -> None:
    table = table_of(SPEC, [1] * 5, times=minutes(0, 0.5, None, 2, 3.001))
    assert flags(table, quality.off_grid_time(SPEC)) == [1, 4]


@pytest.mark.bad_input
def test_duplicate_time__keeps_the_first_of_each_series() -> None:
    first = table_of(SPEC, [1] * 6, times=minutes(0, 1, 0, None, None, 0))
    table = pl.concat([first, table_of(SPEC, [1, 1], series_id="other")])
    assert flags(table, quality.duplicate_time(SPEC)) == [2, 5]
    last = meter(quality__duplicate_time={"keep": "last", "tolerance": 0.5})
    assert flags(table, quality.duplicate_time(last)) == [0, 2]


@pytest.mark.bad_input
def test_out_of_range__bounds_and_null_are_within() -> None:
    table = table_of(SPEC, [0, 15, None, -0.001, 15.001])
    assert flags(table, quality.out_of_range("power_kw", 0.0, 15.0)) == [3, 4]


@pytest.mark.bad_input
def test_repeated__equals_the_row_five_minutes_earlier() -> None:
    table = table_of(SPEC, [1, 2, 3, 4, 5, 1, 2, 9, 4, None, 1])
    assert flags(table, quality.repeated(SPEC)) == [5, 6, 8, 10]


def test_repeated__one_other_value_is_enough_to_differ() -> None:
    table = table_of(SPEC, [1, 2, 3, 4, 5, 1, 2], indoor_c=[20.0] * 5 + [21.0, 20.0])
    assert flags(table, quality.repeated(SPEC)) == [6]


@pytest.mark.bad_input
def test_repeated__a_privileged_column_makes_no_difference() -> None:
    moving = table_of(SPEC, [1, 2, 3, 4, 5, 1, 2], voltage_v=[230 + minute for minute in range(7)])
    assert flags(moving, quality.repeated(SPEC)) == [5, 6]
    still = table_of(SPEC, [7] * 4, voltage_v=[230, 231, 232, 233])
    assert flags(still, quality.frozen(SPEC)) == [1, 2, 3]


def test_repeated__in_runs_of_at_least_two_minutes() -> None:
    runs = meter(quality={"repeated": {"after": "PT5M", "at_least": "PT2M", "tolerance": 1}})
    table = table_of(runs, [1, 2, 3, 4, 5, 1, 2, 9, 4, None, 1])
    assert flags(table, quality.repeated(runs)) == [5, 6]


def test_step_change__from_hours_to_quarters() -> None:
    hours = [60 * hour for hour in range(30)]
    quarters = [60 * 30 + 15 * quarter for quarter in range(40)]
    table = table_of(SPEC, [1] * 70, times=minutes(*hours, *quarters))
    late = START + 30 * 60 * MINUTE
    assert quality.step_change(table) == (late, 60 * MINUTE, 15 * MINUTE)
    assert quality.step_change(table.reverse()) == (late, 60 * MINUTE, 15 * MINUTE)
    other = table.with_columns(series_id=pl.lit("a"), time_utc=pl.lit(START) + pl.int_range(70) * MINUTE)
    assert quality.step_change(pl.concat([other, table])) == (late, 60 * MINUTE, 15 * MINUTE)


def test_step_change__a_gap_or_a_short_stretch_is_none() -> None:
    gap = minutes(*range(30), *range(500, 530))
    assert quality.step_change(table_of(SPEC, [1] * 60, times=gap)) is None
    short = minutes(*range(30), *range(30, 70, 2), *range(70, 100))
    assert quality.step_change(table_of(SPEC, [1] * 80, times=short)) is None
    assert quality.step_change(table_of(SPEC, [1])) is None


def test_reach__is_as_far_as_the_rules_look_back() -> None:
    assert quality.reach(SPEC) == 6 * MINUTE
    assert quality.reach(WITHOUT) == MINUTE
    longer = meter(quality__repeated={"after": "PT5M", "at_least": "PT2M", "tolerance": 1})
    assert quality.reach(longer) == 8 * MINUTE
    assert quality.reach(meter(quality={"flat": {"at_least": "PT9M", "tolerance": 1}})) == 10 * MINUTE


def test_repeated__across_a_gap_looks_at_the_clock() -> None:
    gap = table_of(SPEC, [1, 2, 3, 4, 5, 1, 2, 3], times=minutes(0, 1, 2, 3, 4, 6, 7, 8))
    assert flags(gap, quality.repeated(SPEC)) == []  # five rows before is six minutes before
    shifted = table_of(SPEC, [1, 2, 3, 4, 1, 2], times=minutes(0, 1, 2, 4, 5, 6))
    assert flags(regular_grid(shifted, SPEC), quality.repeated(SPEC)) == [5, 6]


@pytest.mark.parametrize("rule", [quality.repeated(SPEC), quality.frozen(SPEC)], ids=["repeated", "frozen"])
def test_rules_about_earlier_rows__never_look_into_another_series(rule: pl.Expr) -> None:
    first = table_of(SPEC, [7] * 3)
    second = table_of(SPEC, [7] * 3, series_id="other", times=minutes(3, 4, 5))
    assert flags(pl.concat([first, second]), rule) == []


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        ([7, 7, 7], []),  # two minutes still
        ([7, 7, 7, 7], [1, 2, 3]),  # the first was measured
        ([1, 7, 7, 7, 7, 2], [2, 3, 4]),
        ([7, 7, 7, None, 7, 7], []),
        ([7, 7, 7, 7, 8, 8, 8, 8], [1, 2, 3, 5, 6, 7]),
        ([None] * 6, []),
    ],
)
def test_frozen__runs_of_at_least_three_still_minutes(power: list[float | None], expected: list[int]) -> None:
    assert flags(table_of(SPEC, power), quality.frozen(SPEC)) == expected


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        ([0.01, 0.03, 0.02, 5, 0.01, 0.02], [0, 1, 2]),
        ([1.2] * 5, [0, 1, 2, 3, 4]),
        ([1, 2, 1, 2, 1], []),
        ([1, 1, None, 1, 1], []),
        ([1, 1.02, 1.04, 1.04, 9], [1, 2, 3]),  # no three of the first three are within 0.02, the next three are
    ],
)
@pytest.mark.bad_input
def test_flat__a_stuck_target_next_to_a_living_column(power: list[float | None], expected: list[int]) -> None:
    spec = meter(quality={"flat": {"at_least": "PT3M", "within": 0.02, "tolerance": 1}})
    table = table_of(spec, power, voltage_v=[230 + minute for minute in range(len(power))])
    assert flags(table, quality.flat(spec)) == expected
    kept = [None if row in expected else value for row, value in enumerate(power)]
    assert clean(table, spec)["power_kw"].to_list() == kept
    assert clean(table, spec)["voltage_v"].null_count() == 0
    both = pl.concat([table.head(2), table.head(2).with_columns(series_id=pl.lit("other"))])
    assert flags(both, quality.flat(spec)) == []


def test_rules__are_silent_where_the_spec_has_none() -> None:
    still = table_of(WITHOUT, [7] * 20)
    assert_frame_equal(masked(still, WITHOUT), still)


def test_regular_grid__adds_exactly_the_missing_rows() -> None:
    table = table_of(SPEC, [1, 2, 3], times=minutes(0, 3, 4))
    other = table_of(SPEC, [4, 5], times=minutes(10, 12), series_id="other")
    grid = regular_grid(pl.concat([table, other]), SPEC)
    assert grid["power_kw"].to_list() == [1, None, None, 2, 3, 4, None, 5]
    assert grid["time_utc"].to_list() == minutes(0, 1, 2, 3, 4, 10, 11, 12)
    assert grid.filter(pl.col("power_kw").is_null())["voltage_v"].null_count() == 3
    assert_frame_equal(regular_grid(grid, SPEC), grid)


def test_clean__drops_bad_rows_and_masks_bad_values() -> None:
    times = minutes(1, 0, None, 2, 2, 0.5, 3, 4, 5, 6, 8)
    power = [2, 1, 50, 3, 51, 52, 99, 5, 1, 2, 6]  # at 3 out of range; at 5 and 6 as five minutes earlier
    table = clean(table_of(SPEC, power, times=times), SPEC)
    assert table["time_utc"].to_list() == minutes(*range(9))
    assert table["power_kw"].to_list() == [1, 2, 3, None, 5, None, None, None, 6]
    assert table["voltage_v"].is_null().arg_true().to_list() == [5, 6, 7]  # what is out of range hides no neighbour


def test_clean__masks_a_frozen_run_but_for_its_first_reading() -> None:
    assert clean(table_of(SPEC, [1, 7, 7, 7, 7, 2]), SPEC)["power_kw"].to_list() == [1, 7, None, None, None, 2]


@PROPERTY
@given(POWER, POWER, st.integers(1, 40))
def test_rules__never_depend_on_later_rows(first: list[float | None], second: list[float | None], rows: int) -> None:
    rules = [
        quality.repeated(SPEC).alias("repeated"),
        quality.out_of_range("power_kw", 0.0, 15.0).alias("out_of_range"),
        quality.duplicate_time(SPEC).alias("duplicate"),
    ]
    table = two_series(first, second)
    assert_frame_equal(table.head(rows).select(rules), table.select(rules).head(rows))


@PROPERTY
@given(POWER, POWER)
def test_rules__are_those_of_brute_force(first: list[float | None], second: list[float | None]) -> None:
    repeated, frozen = [], []
    for power, offset in ((first, 0), (second, len(first))):
        same = [
            {row for row in range(step, len(power)) if power[row] is not None and power[row] == power[row - step]}
            for step in (1, 5)
        ]
        runs = [run for run in ({row, row + 1, row + 2} for row in range(len(power))) if run <= same[0]]
        frozen += [offset + row for row in sorted(set().union(*runs))]
        repeated += [offset + row for row in sorted(same[1])]
    table = two_series(first, second)
    assert flags(table, quality.repeated(SPEC)) == repeated
    assert flags(table, quality.frozen(SPEC)) == frozen
