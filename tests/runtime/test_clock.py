import datetime as dt
from types import SimpleNamespace

import pytest

import runtime.clock
from runtime.clock import at_its_time, clock_path
from runtime.paths import home
from schemas.forecast import ForecastParameters
from tests.runtime.builders import Log
from tutelage.data.replay import Clock, write_clock

WALL = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
DATA, END = dt.datetime(2010, 7, 1, tzinfo=dt.UTC), dt.datetime(2010, 7, 9, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """A run of a deployment, scheduled ten minutes, or 40.5 hours of the data, after the replay's clock began."""
    write_clock(Clock(WALL, DATA, END, hours_per_minute=4.05), clock_path("replayed"))
    monkeypatch.setattr(runtime.clock, "deployment", SimpleNamespace(id="a deployment"))
    scheduled = SimpleNamespace(scheduled_start_time=WALL + dt.timedelta(minutes=10))
    monkeypatch.setattr(runtime.clock, "flow_run", scheduled)
    lines = Log()
    monkeypatch.setattr(runtime.clock, "get_run_logger", lambda: lines)
    return lines


def test_clock_path__is_one_for_each_dataset() -> None:
    assert clock_path("household") == home() / "clock" / "household.json"


def test_at_its_time__is_the_full_hour_that_the_run_was_scheduled_for(log: Log) -> None:
    given = ForecastParameters(dataset="replayed", horizon_hours=6)
    timed = at_its_time(given)
    assert timed.as_of == DATA + dt.timedelta(hours=40)
    assert timed == given.model_copy(update={"as_of": timed.as_of})
    [line] = log.lines
    assert "2010-07-02 16:00 UTC" in line


def test_at_its_time__stops_where_the_replay_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    much_later = SimpleNamespace(scheduled_start_time=WALL + dt.timedelta(days=9))
    monkeypatch.setattr(runtime.clock, "flow_run", much_later)
    assert at_its_time(ForecastParameters(dataset="replayed")).as_of == END


def test_at_its_time__keeps_a_time_that_is_given() -> None:
    given = ForecastParameters(dataset="replayed", as_of=dt.datetime(2010, 7, 5, tzinfo=dt.UTC))
    assert at_its_time(given) is given


def test_at_its_time__of_a_dataset_without_a_replay_is_the_datas_end() -> None:
    assert at_its_time(ForecastParameters(dataset="not-replayed")).as_of is None


@pytest.mark.parametrize("no_deployment", [None, ""])
def test_at_its_time__by_hand_is_the_datas_end(monkeypatch: pytest.MonkeyPatch, no_deployment: str | None) -> None:
    monkeypatch.setattr(runtime.clock, "deployment", SimpleNamespace(id=no_deployment))
    assert at_its_time(ForecastParameters(dataset="replayed")).as_of is None
