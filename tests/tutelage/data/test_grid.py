import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tutelage.builders import PROPERTY
from tests.tutelage.data.builders import START, meter
from tutelage.data.grid import EPOCH, HOUR, MINUTE, Grid
from tutelage.data.steps import number_of
from tutelage.errors import SpecError

LENGTHS = (5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440)
GRIDS = st.sampled_from(LENGTHS).flatmap(
    lambda length: st.builds(Grid, st.just(length * MINUTE), st.integers(0, length - 1))
)


@PROPERTY
@given(GRIDS, st.datetimes(dt.datetime(1960, 1, 1), dt.datetime(2060, 1, 1)))
def test_grid__every_time_is_in_the_step_of_its_number(grid: Grid, naive: dt.datetime) -> None:
    time = naive.replace(tzinfo=dt.UTC)
    begin = grid.floor(time)
    assert begin <= time < begin + grid.step
    assert grid.index(begin) == grid.index(time) == grid.index(begin + grid.step) - 1
    assert (begin - EPOCH - grid.begin_minute * MINUTE) % grid.step == dt.timedelta(0)
    whole = time.replace(microsecond=0)
    assert pl.select(number_of(pl.lit(whole, pl.Datetime("us", "UTC")), grid)).item() == grid.index(whole)


@pytest.mark.parametrize("length", LENGTHS)
def test_grid__a_day_is_a_whole_number_of_steps(length: int) -> None:
    grid = Grid(length * MINUTE)
    assert grid.of_day * grid.step == dt.timedelta(days=1)
    assert grid.steps(24) == grid.of_day
    assert grid.hours * 60 == length
    assert grid.covering(1) == max(1, 60 // length)


@pytest.mark.bad_input
def test_grid__hours_that_are_no_steps_are_refused_by_their_name() -> None:
    with pytest.raises(SpecError, match=r"^horizon_hours: 36 h are not a whole number of student_step, 24 h$"):
        Grid(24 * HOUR).steps(36, called="horizon_hours")


@pytest.mark.parametrize(
    ("step", "timestamp", "begin"),
    [
        ("PT1H", {"timezone": "Asia/Kolkata"}, 30),
        ("PT15M", {"timezone": "Asia/Kolkata"}, 0),
        ("PT20M", {"timezone": "Asia/Kolkata"}, 10),
        ("P1D", {"timezone": "Asia/Kolkata"}, 18 * 60 + 30),
        ("P1D", {"timezone": "Asia/Kolkata", "hours": "utc"}, 0),
        ("PT6H", {"timezone": "Asia/Kolkata"}, 30),
        ("P1D", {"timezone": "Etc/GMT-1"}, 23 * 60),
        ("P1D", {"timezone": "Europe/Paris", "hours": "utc"}, 0),
        ("PT30M", {"timezone": "Australia/Lord_Howe"}, 0),
    ],
)
def test_spec__steps_begin_with_the_day_of_the_clock(step: str, timestamp: dict[str, str], begin: int) -> None:
    spec = meter(student_step=step, timestamp={"columns": ["time"], **timestamp})
    assert spec.grid.begin_minute == begin
    assert spec.grid.floor(START) <= START
