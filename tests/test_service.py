"""What `make up` does without its servers; tests/service has the real ones."""

import datetime as dt
import errno
from pathlib import Path

import pytest

from deployments import service
from deployments.service import keep_time
from tutelage.data.grid import HOUR
from tutelage.data.replay import Clock, read_clock, write_clock

START = dt.datetime(2010, 6, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))


def full_disk(clock: Clock, path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_keep_time__outlasts_a_full_disk_and_prints_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clock" / "household.json"
    minute_ago = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    write_clock(Clock(minute_ago, START, START + 9000 * HOUR, 24.0), path)
    with monkeypatch.context() as full:
        full.setattr(service, "write_clock", full_disk)
        failing = keep_time(was_failing=False)
        assert keep_time(was_failing=failing)
    assert capsys.readouterr().out == (
        "the replay's time can't be stored (No space left on device); it is tried again each second\n"
    )
    assert not keep_time(was_failing=True)
    clock = read_clock(path)
    assert clock is not None
    assert clock.data >= START + 24 * HOUR
