import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polars.testing import assert_frame_equal

from tests.tutelage.builders import PROPERTY, READINGS, START, grid_of, small_spec
from tutelage.data.resample import readings_within, student_table

SPEC = small_spec(complete_share=0.5)
ENOUGH = 3  # of 6 readings are half
TARGET, HEAT = 0, 1  # places in SPEC.names()

READINGS_OF_HOURS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.just(READINGS), st.just(3)),
    elements=st.one_of(st.floats(0, 100, width=32), st.just(np.nan)),
)


def hourly_means(readings: np.ndarray) -> np.ndarray:
    """The rule, value by value: (hours, columns), NaN for an hour with too few readings."""
    result = np.full((len(readings), 3), np.nan)
    for hour, column in np.ndindex(*result.shape):
        there = [value for value in readings[hour, :, column] if not np.isnan(value)]
        if len(there) >= ENOUGH:
            result[hour, column] = sum(there) / len(there)
    return result


@PROPERTY
@given(READINGS_OF_HOURS)
def test_hourly_table__is_that_of_brute_force(readings: np.ndarray) -> None:
    hours = student_table(grid_of(SPEC, readings), SPEC)
    expected = hourly_means(readings)
    expected[:, HEAT] *= READINGS  # a sum, scaled up to the full hour
    np.testing.assert_allclose(hours.select(SPEC.names()).to_numpy(), expected, rtol=1e-12)
    assert hours["time_utc"].to_list() == [START + i * dt.timedelta(hours=1) for i in range(len(readings))]


@PROPERTY
@given(READINGS_OF_HOURS, st.integers(0, 999))
def test_hourly_table__the_order_within_an_hour_does_not_matter(readings: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permuted(readings, axis=1)
    tables = [student_table(grid_of(SPEC, values), SPEC) for values in (readings, shuffled)]
    assert_frame_equal(*tables, rel_tol=1e-12)


@pytest.mark.parametrize(("there", "mean", "total"), [(6, 2.0, 12.0), (3, 2.0, 12.0), (2, None, None), (0, None, None)])
def test_hourly_table__golden(there: int, mean: float | None, total: float | None) -> None:
    readings = np.full((1, READINGS, 3), 2.0)
    readings[0, there:] = np.nan
    [row] = student_table(grid_of(SPEC, readings), SPEC).iter_rows(named=True)
    assert (row["power_kw"], row["voltage_v"], row["heat_wh"]) == (mean, mean, total)


def test_hourly_table__series_stay_apart() -> None:
    readings = np.random.default_rng(0).uniform(0, 9, (4, READINGS, 3))
    grids = [grid_of(SPEC, readings), grid_of(SPEC, readings[:2] + 1, series_id="b")]
    together = student_table(pl.concat(grids).sample(fraction=1, shuffle=True, seed=0), SPEC)
    assert_frame_equal(together, pl.concat(student_table(grid, SPEC) for grid in grids))


def test_hourly_table__a_mean_is_the_same_bit_by_bit_whatever_follows() -> None:
    readings = np.random.default_rng(0).uniform(0, 9, (500, READINGS, 3))
    whole = student_table(grid_of(SPEC, readings), SPEC)
    for rows in range(1, 500, 50):
        part = student_table(grid_of(SPEC, readings).head(rows * READINGS - 1), SPEC).head(-1)
        assert part.equals(whole.head(rows - 1))


@PROPERTY
@given(READINGS_OF_HOURS)
def test_minutes_of_hours__are_deviations_in_their_slots(readings: np.ndarray) -> None:
    grid = grid_of(SPEC, readings)
    minutes = readings_within(grid, student_table(grid, SPEC), SPEC)
    target = readings[:, :, TARGET]
    deviation = target - hourly_means(readings)[:, [TARGET]]
    np.testing.assert_allclose(minutes, np.nan_to_num(deviation), rtol=1e-6, atol=1e-5)
    full = ~np.isnan(target).any(axis=1)
    np.testing.assert_allclose(minutes[full].mean(axis=1), 0.0, atol=1e-5)


def test_minutes_of_hours__golden_whatever_the_order_of_the_rows() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [7.0] * 5 + [np.nan]
    readings = np.repeat(np.array([first, second])[:, :, None], 3, axis=2)
    grid = pl.concat([grid_of(SPEC, readings), grid_of(SPEC, readings[::-1], series_id="b")])
    hours = student_table(grid, SPEC)
    minutes = readings_within(grid.sample(fraction=1, shuffle=True, seed=0), hours, SPEC)
    rising, flat = [-3.0, -2.0, -1.0, 0.0, 1.0, 5.0], [0.0] * 6
    assert minutes.tolist() == [rising, flat, flat, rising]
