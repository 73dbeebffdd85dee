import datetime as dt
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest

from tests.tutelage.data.builders import HOUR, START, meter
from tutelage.data.sizes import Sizes, find_sizes, in_sizes, sizes_from, spread_of

SPEC = meter()
SIZES = Sizes({"small": 0.5, "large": 2.0}, spread=4.0, columns=("power_kw",))


def hourly(**series: list[float | None]) -> pl.DataFrame:
    """An hourly table of series that begin at START."""
    return pl.concat(
        pl.DataFrame(
            {
                "series_id": [name] * len(power),
                "time_utc": [START + hour * HOUR for hour in range(len(power))],
                "power_kw": power,
                "indoor_c": [20.0] * len(power),
                "voltage_v": [230.0] * len(power),
            },
            schema_overrides={"time_utc": pl.Datetime("us", "UTC"), "power_kw": pl.Float64},
        )
        for name, power in series.items()
    )


def sizes_of(table: pl.DataFrame, *, end: dt.datetime = START + 4 * HOUR) -> Sizes | None:
    return find_sizes(table, SPEC, start=START, end=end, least=2)


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([1.0, 3.0, float("nan")], 1.0),
        ([-5.0, -5.0], 5.0),
        ([1000.0, 1000.0 + 1e-9], 1000.0),
        ([0.0, 0.0], None),
        ([float("nan")], None),
        ([], None),
    ],
    ids=["deviation", "constant", "rounding", "zeros", "nothing", "empty"],
)
def test_spread_of__is_the_deviation_or_the_level(values: list[float], spread: float | None) -> None:
    assert spread_of(np.array(values)) == (None if spread is None else pytest.approx(spread))


def test_find_sizes__are_relative_to_the_median_series() -> None:
    found = sizes_of(hourly(a=[0.0, 2.0] * 2, b=[0.0, 20.0] * 2, c=[0.0, 200.0] * 2))
    assert found is not None
    assert found.of_series == {"a": pytest.approx(0.1), "b": 1.0, "c": pytest.approx(10.0)}
    assert (found.spread, found.columns) == (10.0, ("power_kw",))


def test_find_sizes__one_series_has_none() -> None:
    assert sizes_of(hourly(a=[0.0, 2.0] * 2)) is None


def test_find_sizes__sees_the_training_part_alone() -> None:
    table = hourly(a=[0.0, 2.0] * 4, b=[0.0, 2.0] * 2 + [0.0, 500.0] * 2)
    found = sizes_of(table)
    assert found is not None
    assert found.of_series == {"a": 1.0, "b": 1.0}


def test_find_sizes__a_late_starter_is_as_large_as_the_past_of_its_first_window() -> None:
    late = [None] * 5 + [0.0, 8.0, 900.0]
    found = sizes_of(hourly(a=[0.0, 2.0] * 4, b=[0.0, 2.0] * 4, c=late))
    assert found is not None
    assert found.of_series["c"] == 4.0, "its first two values, not the third"


def test_find_sizes__a_dead_series_changes_no_other() -> None:
    table = hourly(a=[0.0, 2.0] * 4, b=[0.0, 6.0] * 4, dead=[0.0] * 8, silent=[None] * 8)
    found, without = sizes_of(table), sizes_of(hourly(a=[0.0, 2.0] * 4, b=[0.0, 6.0] * 4))
    assert found is not None
    assert without is not None
    assert found.of_series == {**without.of_series, "dead": 1.0, "silent": 1.0}


def test_in_sizes__divides_what_has_the_targets_unit() -> None:
    hours, minutes = in_sizes(hourly(small=[1.0, 2.0], large=[4.0, None]), np.ones((4, 2), np.float32), SIZES)
    assert hours["power_kw"].to_list() == [2.0, 4.0, 2.0, None]
    assert hours["indoor_c"].to_list() == [20.0] * 4
    assert minutes[:, 0].tolist() == [2.0, 2.0, 0.5, 0.5]
    assert minutes.dtype == np.float32


def test_sizes__a_series_that_is_not_known_is_as_large_as_its_past() -> None:
    assert SIZES.of("large", np.zeros(2)) == 2.0
    assert SIZES.of("new", np.array([0.0, 24.0, np.nan])) == 3.0
    assert SIZES.of("new", np.zeros(2)) == 1.0


def test_sizes__multiply_columns_by_name_at_the_end() -> None:
    values = np.ones((2, 1, 3))
    scaled = SIZES.times(values, ["power_kw", "indoor_c"], np.array([2.0, 3.0]))
    assert scaled.tolist() == [[[1.0, 2.0, 1.0]], [[1.0, 3.0, 1.0]]]
    assert values.max() == 1.0, "the given values stay as they are"


def test_sizes__come_back_from_plain_values() -> None:
    assert sizes_from({"sizes": {**asdict(SIZES), "columns": ["power_kw"]}}) == SIZES
    assert sizes_from({}) is None
