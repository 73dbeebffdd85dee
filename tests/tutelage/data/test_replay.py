import datetime as dt
from pathlib import Path

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tutelage.builders import PROPERTY
from tutelage.data.replay import Clock, Replay, read_clock, started, write_clock

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
START = dt.datetime(2010, 6, 1, tzinfo=dt.UTC)
REPLAY = Replay(start=START, end=START + dt.timedelta(days=30), hours_per_minute=24)


def minutes(count: float) -> dt.timedelta:
    return dt.timedelta(minutes=count)


def test_clock__a_day_passes_in_a_minute() -> None:
    clock = started(REPLAY, NOW, None)
    assert clock.at(NOW) == START
    assert clock.at(NOW + minutes(1)) == START + dt.timedelta(days=1)
    assert clock.at(NOW + minutes(2.5)) == START + dt.timedelta(days=2, hours=12)


def test_clock__reads_the_times_of_prefect() -> None:
    clock = started(REPLAY, NOW, None)
    assert clock.at(pendulum.instance(NOW + minutes(1))) == START + dt.timedelta(days=1)
    theirs = Clock(pendulum.instance(NOW), START, REPLAY.end, 24)
    assert theirs.hour_at(pendulum.instance(NOW - minutes(0.5))) == START - dt.timedelta(hours=12)


def test_clock__stops_at_its_end() -> None:
    clock = started(REPLAY, NOW, None)
    assert clock.at(NOW + minutes(29)) < REPLAY.end
    assert clock.at(NOW + minutes(31)) == clock.at(NOW + minutes(1000)) == REPLAY.end


def test_clock__gives_the_last_full_hour_in_utc() -> None:
    east = dt.timezone(dt.timedelta(hours=9))
    clock = Clock(NOW.astimezone(east), START.astimezone(east), REPLAY.end, 1.0)
    assert clock.hour_at(NOW + minutes(1.99)) == START + dt.timedelta(hours=1)
    assert clock.hour_at(NOW + minutes(1.99)).utcoffset() == dt.timedelta(0)


@PROPERTY
@given(st.floats(0, 100), st.floats(0, 100))
def test_clock__moved_to_a_later_time_is_the_same(first: float, then: float) -> None:
    clock = started(REPLAY, NOW, None)
    later = NOW + minutes(first)
    difference = clock.moved(later).at(later + minutes(then)) - clock.at(later + minutes(then))
    assert abs(difference) <= dt.timedelta(milliseconds=1)


def test_started__goes_on_where_it_stood_whatever_time_went_by() -> None:
    stood = started(REPLAY, NOW, None).moved(NOW + minutes(3))
    again = started(REPLAY, NOW + dt.timedelta(days=2), stood)
    assert again.at(NOW + dt.timedelta(days=2)) == START + dt.timedelta(days=3)
    assert again.at(NOW + dt.timedelta(days=2) + minutes(1)) == START + dt.timedelta(days=4)


def test_started__a_run_that_was_due_before_has_the_time_at_which_it_stood() -> None:
    """A run that waited over ten hours without the service, or that a person retries."""
    begun = NOW + dt.timedelta(hours=10)
    again = started(REPLAY, begun, started(REPLAY, NOW, None).moved(NOW + minutes(3))).moved(begun + minutes(2))
    assert again.at(NOW) == again.at(begun) == START + dt.timedelta(days=3)
    assert again.at(begun + minutes(1)) == START + dt.timedelta(days=4)


def test_started__takes_speed_and_end_from_the_spec_as_it_is_now() -> None:
    stood = started(REPLAY, NOW, None).moved(NOW + minutes(3))
    slower = Replay(start=START, end=START + dt.timedelta(days=4), hours_per_minute=1)
    again = started(slower, NOW, stood)
    assert again.at(NOW + minutes(1)) == START + dt.timedelta(days=3, hours=1)
    assert again.at(NOW + minutes(100)) == slower.end


def test_read_clock__gives_back_what_was_written(tmp_path: Path) -> None:
    for since in (None, NOW):
        clock = Clock(NOW + dt.timedelta(microseconds=7), START, REPLAY.end, 2.5, since)
        write_clock(clock, tmp_path / "clock" / "household.json")
        assert read_clock(tmp_path / "clock" / "household.json") == clock
    assert read_clock(tmp_path / "clock" / "nowhere.json") is None


def test_replay__must_go_forward() -> None:
    with pytest.raises(ValueError, match="is not before end"):
        Replay(start=START, end=START)


def test_replay__times_need_a_zone() -> None:
    with pytest.raises(ValueError, match="timezone"):
        Replay(start=START.replace(tzinfo=None), end=REPLAY.end)
