"""Processes and logs that an earlier start left behind."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import processes
from deployments.processes import LONGEST_LOG_BYTES, Running, ServiceError, end_orphans, started_at
from tutelage.files import read_json, write_json


@pytest.fixture(params=["linux", "elsewhere"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if request.param == "elsewhere":
        monkeypatch.setattr(processes, "BOOT", tmp_path / "none")


@pytest.fixture
def left() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def record(left: subprocess.Popen[bytes], system: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The record of a start in Seoul; whoever reads it is in Lisbon."""
    monkeypatch.setenv("TZ", "Asia/Seoul")
    write_json(tmp_path / "processes.json", {"prefect": [left.pid, started_at(left.pid)]})
    monkeypatch.setenv("TZ", "Europe/Lisbon")
    return tmp_path / "processes.json"


def test_end_orphans__knows_them_in_another_time_zone(
    left: subprocess.Popen[bytes],
    record: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # It is this process's child, and elsewhere than on Linux one that nobody has waited for still counts.
    monkeypatch.setattr(processes, "started_at", lambda pid: "" if left.poll() is not None else started_at(pid))
    end_orphans(record)
    assert left.wait(5) == -signal.SIGTERM
    assert not record.exists()
    assert capsys.readouterr().out == "ending prefect, left behind by an earlier start\n"


def test_end_orphans__leaves_others_with_the_same_id_alone(left: subprocess.Popen[bytes], record: Path) -> None:
    write_json(record, {"prefect": [left.pid, "at another time"], "mlflow": [left.pid, ""]})
    end_orphans(record)
    assert left.poll() is None
    assert not record.exists()


def test_end_orphans__remembers_what_does_not_end(
    left: subprocess.Popen[bytes], record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = read_json(record)
    write_json(record, known | {"mlflow": [left.pid, "at another time"]})
    monkeypatch.setattr(processes, "end_group", lambda pid, alive: None)
    with pytest.raises(ServiceError, match=rf"can't be ended: prefect \(process {left.pid}\)$"):
        end_orphans(record)
    assert read_json(record) == known


def test_started_at__of_one_that_has_ended_is_empty(left: subprocess.Popen[bytes]) -> None:
    assert started_at(left.pid)
    left.kill()
    deadline = time.monotonic() + 5
    while started_at(left.pid) and time.monotonic() < deadline:  # nobody has waited for it yet
        time.sleep(0.01)
    assert started_at(left.pid) == ""
    left.wait()
    assert started_at(left.pid) == ""


def test_running__sets_long_logs_of_earlier_starts_aside(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    long = b"." * (LONGEST_LOG_BYTES + 1)
    (logs / "prefect.log").write_bytes(long)
    (logs / "prefect.log.1").write_bytes(b"of an earlier start")
    (logs / "mlflow.log").write_bytes(long[1:])
    Running(tmp_path / "processes.json", logs, tmp_path, {})
    assert {path.name: path.stat().st_size for path in logs.iterdir()} == {
        "prefect.log.1": len(long),
        "mlflow.log": LONGEST_LOG_BYTES,
    }
