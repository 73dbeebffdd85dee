"""The whole service on one machine: `python -m deployments.service up`, and `down` from anywhere else.

Up starts a Prefect server, an MLflow server and a worker, each after those that it needs, and runs until Ctrl-C or
`down`, or until one of them ends; then it ends exactly the processes that it started. Settings: docs/service.md.
"""

import datetime as dt
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from deployments.access import HOST, access_settings, credentials, header, listening_host, own_host, write_access
from deployments.databases import create_databases, database_settings
from deployments.processes import Running, Service, ServiceError, end_orphans, say, until
from runtime.moved import follow_home
from runtime.paths import datasets_folder, home
from tutelage.data.replay import read_clock, write_clock

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
POOL = "tutelage"
RECORD = "processes.json"
GONE_SECONDS = 180
LAST_PORT = 65535


def prefect_port() -> int:
    """The port of Prefect's page and API: PREFECT_PORT, by default 4200."""
    return _port("PREFECT_PORT", default=4200)


def mlflow_port() -> int:
    """The port of MLflow's page and API: MLFLOW_PORT, by default 5000."""
    return _port("MLFLOW_PORT", default=5000)


def _port(variable: str, *, default: int) -> int:
    text = os.environ.get(variable, str(default))
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 1 <= port <= LAST_PORT:
        raise ServiceError(f"{variable} is {text!r}, but must be a number from 1 to {LAST_PORT}")
    return port


def shared_settings() -> dict[str, str]:
    """What every process needs, wherever the servers are: their databases, access, and the heartbeat of runs."""
    return {
        **os.environ,
        **database_settings(),
        **access_settings(home() / "service"),
        "PYTHONUNBUFFERED": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        # In memory, by default, a restart of the server would end all runs whose deployment has a limit.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # Job execution would start a dozen processes that nothing here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def environment() -> dict[str, str]:
    """The environment of every process of this machine's service: the addresses of both servers, and folders, too."""
    api = f"http://{own_host()}:{prefect_port()}/api"
    return {
        **shared_settings(),
        "TUTELAGE_HOME": str(home()),
        "TUTELAGE_DATASETS": str(datasets_folder().resolve()),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PREFECT_API_URL": api,
        # Without it the page calls port 4200, whichever port the server listens on.
        "PREFECT_SERVER_UI_API_URL": os.environ.get("PREFECT_SERVER_UI_API_URL", api),
        "MLFLOW_TRACKING_URI": f"http://{own_host()}:{mlflow_port()}",
    }


def _answers(url: str, body: dict[str, Any] | None = None) -> Any:
    """The response of a URL, decoded if it is JSON; None where there is no response (yet)."""
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"} | header())
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _worker_ready(since: float) -> bool:
    """Whether a worker has polled after `since`: one of an earlier start still counts as online for some time."""
    url = f"http://{own_host()}:{prefect_port()}/api/work_pools/{POOL}/workers/filter"
    seen = [worker["last_heartbeat_time"] for worker in _answers(url, {}) or []]
    return any(dt.datetime.fromisoformat(text).timestamp() >= since for text in seen)


def servers() -> list[Service]:
    """The two servers, which don't depend on each other."""
    prefect, mlflow = f"http://{own_host()}:{prefect_port()}", f"http://{own_host()}:{mlflow_port()}"
    mlflow_options = ["--workers", "1", "--artifacts-destination", (home() / "mlflow-artifacts").as_uri()]
    if credentials() is not None:
        mlflow_options += ["--app-name", "basic-auth"]
    return [
        Service(
            "prefect",
            [str(BIN / "prefect"), "server", "start", "--host", listening_host(), "--port", str(prefect_port())],
            lambda: _answers(f"{prefect}/api/health") is True,
        ),
        Service(
            "mlflow",
            [str(BIN / "mlflow"), "server", "--host", listening_host(), "--port", str(mlflow_port()), *mlflow_options],
            lambda: _answers(f"{mlflow}/health") == "OK",
        ),
    ]


def worker() -> Service:
    """The worker, which starts the flow runs."""
    started = time.time()
    return Service(
        "worker",
        [str(BIN / "prefect"), "worker", "start", "--pool", POOL, "--type", "process", "--name", "tutelage"],
        lambda: _worker_ready(started),
    )


REPLAY = [sys.executable, "-m", "deployments.replay"]
ARRANGE = [sys.executable, "-m", "deployments.arrange"]
DEPLOY = [str(BIN / "prefect"), "--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml"]


@contextmanager
def _only_one(folder: Path) -> Iterator[IO[str]]:
    """Hold the service's lock. Raises ServiceError where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ServiceError(f"it is up already for {home()}: `make down` ends it") from None
        yield file


def _require_free(port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listening_host(), port))
        except (OSError, UnicodeError) as error:  # UnicodeError: of a name with an empty part
            number = getattr(error, "errno", None)
            if number == errno.EADDRINUSE:
                sentence = f"port {port} is taken; set {variable} to another"
            elif number == errno.EACCES:
                sentence = f"port {port} is reserved for the system; set {variable} to another"
            else:
                sentence = (
                    f"{HOST} {listening_host()} is no address of this machine: give an IPv4 address of it, or a name"
                )
            raise ServiceError(sentence) from None


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def up() -> None:
    """Start everything, print the addresses, and run until a signal or until a process ends."""
    folder = home() / "service"
    for ending in (signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
        signal.signal(ending, _stop)
    with _only_one(folder) as lock:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        end_orphans(folder / RECORD)
        credentials()  # before anything is started
        follow_home(home())
        _require_free(prefect_port(), "PREFECT_PORT")
        _require_free(mlflow_port(), "MLFLOW_PORT")
        running = Running(folder / RECORD, home() / "logs", ROOT, environment())
        try:
            _start_all(running)
            failing = False
            while True:
                running.check()
                failing = keep_time(was_failing=failing)
                time.sleep(1)
        except KeyboardInterrupt:
            say("")
        finally:
            for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(ending, signal.SIG_IGN)
            running.end()


def keep_time(*, was_failing: bool) -> bool:
    """Store the times of the replays' clocks, so that they continue from there when the service starts again.

    Return whether that failed. A disk that is full for a moment ends no training; it is printed once, not each second.
    """
    try:
        for path in (home() / "clock").glob("*.json"):
            clock = read_clock(path)
            if clock is not None:
                write_clock(clock.moved(dt.datetime.now(dt.UTC)), path)
    except OSError as error:
        if not was_failing:
            say(f"the replay's time can't be stored ({error.strerror}); it is tried again each second")
        return True
    return False


def _start_all(running: Running) -> None:
    say(f"starting; logs are in {running.logs}")
    create_databases()
    write_access(home() / "service")
    both_servers = servers()
    for service in both_servers:
        running.start(service)
    for service in both_servers:
        running.wait(service)
    running.step("arrange", ARRANGE)
    running.step("deploy", DEPLOY)
    running.step("replay", REPLAY)
    flow_worker = worker()
    running.start(flow_worker)
    running.wait(flow_worker)
    say(f"Prefect   http://{own_host()}:{prefect_port()}/deployments   start, schedule and watch flows")
    say(f"MLflow    http://{own_host()}:{mlflow_port()}   compare runs, registered models")
    say("It is up. Ctrl-C here, or `make down`, ends it.")


def _is_up(folder: Path) -> bool:
    try:
        with _only_one(folder):
            return False
    except ServiceError:
        return True


def down() -> None:
    """End the service of this TUTELAGE_HOME, wherever it was started. Raises ServiceError where it doesn't end."""
    folder = home() / "service"
    if not _is_up(folder):
        end_orphans(folder / RECORD)
        print("it is not up")
        return
    os.kill(int((folder / "lock").read_text()), signal.SIGTERM)
    if not until(lambda: not _is_up(folder), GONE_SECONDS):
        raise ServiceError("it did not end; its logs are in " + str(home() / "logs"))
    end_orphans(folder / RECORD)  # those of an `up` that did not finish ending
    print("it is down")


def main() -> int:
    """Run the command `up` or `down`."""
    command = {"up": up, "down": down}.get(sys.argv[1] if len(sys.argv) == 2 else "")
    if command is None:
        print("name a command: up or down", file=sys.stderr)
        return 2
    try:
        command()
    except ServiceError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
