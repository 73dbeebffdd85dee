"""What `make up` does without its servers; tests/service has the real ones."""

import datetime as dt
import errno
import socket
from pathlib import Path

import pytest

from deployments import service
from deployments.access import HOST, PASSWORD, USER
from deployments.service import keep_time, main
from tutelage.data.grid import HOUR
from tutelage.data.replay import Clock, read_clock, write_clock

START = dt.datetime(2010, 6, 1, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    monkeypatch.setattr(service, "_start_all", lambda running: pytest.fail("it starts"))
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    for name in ("PREFECT_PORT", "MLFLOW_PORT", "TUTELAGE_DATABASE_URL", HOST, USER, PASSWORD):
        monkeypatch.delenv(name, raising=False)


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **settings: str) -> str:
    """What `up` prints where it does not start."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["service", "up"])
    assert main() == 1
    return capsys.readouterr().err.strip()


@pytest.mark.parametrize("variable", ["PREFECT_PORT", "MLFLOW_PORT"])
@pytest.mark.parametrize("value", ["abc", "", "0", "65536", "-1", "tcp://10.0.0.1:4200"])
def test_up__a_port_is_a_number(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "_require_free", lambda port, variable: None)
    said = refusal(monkeypatch, capsys, **{variable: value})
    assert said == f"{variable} is {value!r}, but must be a number from 1 to 65535"


def test_up__a_port_is_taken_only_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert refusal(monkeypatch, capsys, PREFECT_PORT=port) == f"port {port} is taken; set PREFECT_PORT to another"


@pytest.mark.parametrize("host", ["::1", "192.0.2.1", "meters..example"])
def test_up__the_host_is_an_address_of_this_machine(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(monkeypatch, capsys, **{HOST: host, USER: "ada", PASSWORD: "for-a-test-0123"})
    assert said == f"{HOST} {host} is no address of this machine: give an IPv4 address of it, or a name"


def test_up__a_port_of_the_system_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(probe: socket.socket, address: tuple[str, int]) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", refuse)
    said = refusal(monkeypatch, capsys, PREFECT_PORT="80")
    assert said == "port 80 is reserved for the system; set PREFECT_PORT to another"


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
