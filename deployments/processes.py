"""Long-running processes: each started in its own process group, monitored, and reliably ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.files import read_json, write_json

PATIENCE_SECONDS = 180
GRACE_SECONDS = 15
LONGEST_LOG_BYTES = 10 * 2**20
BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Linux' id of the time since the machine was started; other systems have none."""


def say(text: str) -> None:
    """Print a line; where the terminal is closed, discard it and continue."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ServiceError(Exception):
    """The service can't start or can't continue; the message is a sentence for the reader."""


@dataclass(frozen=True)
class Service:
    """A long-running process: its name, its command, and a check whether it is ready."""

    name: str
    command: list[str]
    ready: Callable[[], bool]


class Running:
    """The started processes, each the leader of its own group, in the order of their start."""

    def __init__(self, record: Path, logs: Path, where: Path, environment: dict[str, str]) -> None:
        self.record, self.logs, self.where, self.environment = record, logs, where, environment
        self.logs.mkdir(parents=True, exist_ok=True)
        set_aside_long(self.logs)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: Service) -> None:
        """Start a long-running process; its output goes to a log with its name."""
        with (self.logs / f"{service.name}.log").open("ab") as log:
            self.processes[service.name] = subprocess.Popen(
                service.command, cwd=self.where, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        leaders = {name: [process.pid, started_at(process.pid)] for name, process in self.processes.items()}
        write_json(self.record, leaders)

    def step(self, name: str, command: list[str]) -> None:
        """Run a command to its end. Raises ServiceError with the end of its output where it fails."""
        done = subprocess.run(
            command, cwd=self.where, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        with (self.logs / f"{name}.log").open("ab") as log:
            log.write(done.stdout)
        if done.returncode:
            raise ServiceError(f"{name} failed:\n{done.stdout.decode()[-2000:]}")

    def wait(self, service: Service) -> None:
        """Wait until a service is ready. Raises ServiceError where a process ends before, or it takes too long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not service.ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServiceError(f"{service.name} was not ready in {PATIENCE_SECONDS} s; {self._tail(service.name)}")
            time.sleep(0.5)

    def check(self) -> None:
        """Raise ServiceError where a process has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise ServiceError(f"{name} ended unexpectedly with exit code {process.returncode}; {self._tail(name)}")

    def _tail(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        return f"its log, {path}, ends:\n{path.read_text(encoding='utf-8', errors='replace')[-2000:]}"

    def end(self) -> None:
        """End all processes, the last started first, so that a flow run can still report its end to the server."""
        for name, process in reversed(self.processes.items()):
            say(f"ending {name}")
            end_group(process.pid, lambda process=process: process.poll() is None)  # type: ignore[misc]
        self.record.unlink(missing_ok=True)


def set_aside_long(logs: Path) -> None:
    """Rename each log above LONGEST_LOG_BYTES to NAME.log.1, in place of an earlier one: logs are only appended to."""
    for path in logs.glob("*.log"):
        if path.stat().st_size > LONGEST_LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))


def end_group(pid: int, alive: Callable[[], bool]) -> None:
    """End a process, then the rest of its group.

    A worker may survive the first signal; a second one ends it. Processes that survive both are killed.
    """
    for _ in range(2):
        if alive():
            os.kill(pid, signal.SIGTERM)
            until(lambda: not alive(), GRACE_SECONDS)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, sign)
        except ProcessLookupError:
            return
        until(lambda: not (alive() or _group_lives(pid)), GRACE_SECONDS)


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition is met, at most `seconds`; return whether it is."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return met


def started_at(pid: int) -> str:
    """When a process started, which with its id identifies it, whatever the time zone; empty where it has ended.

    On Linux the boot and the ticks since then, which stay when the clock is set; elsewhere UTC, as `ps` prints it.
    """
    if not BOOT.is_file():
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        in_utc = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
        return subprocess.run(command, env=in_utc, capture_output=True, text=True, check=False).stdout.strip()
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # Fields 3 to 52 of proc(5); before them is the name, in brackets, which may have blanks and brackets itself.
    fields = content.rpartition(")")[2].split()
    if fields[0] == "Z":  # it has ended, and nobody has waited for it
        return ""
    return f"{BOOT.read_text(encoding='utf-8').strip()} {fields[19]}"


def end_orphans(record: Path) -> None:
    """End the processes in `record` that an earlier start left behind when it was killed.

    Raises ServiceError where one does not end; it stays in the record.
    """
    if not record.is_file():
        return
    alive = {}
    for name, (pid, started) in reversed(read_json(record).items()):
        if started and started_at(pid) == started:
            say(f"ending {name}, left behind by an earlier start")
            end_group(pid, lambda pid=pid, started=started: started_at(pid) == started)  # type: ignore[misc]
            if started_at(pid) == started:
                alive[name] = [pid, started]
    if alive:
        write_json(record, dict(reversed(alive.items())))
        names = ", ".join(f"{name} (process {pid})" for name, (pid, _) in alive.items())
        raise ServiceError(f"left behind by an earlier start, and can't be ended: {names}")
    record.unlink()
