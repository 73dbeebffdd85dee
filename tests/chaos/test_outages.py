"""What a retrain needs breaks while it runs: servers, databases, disk, memory. Then it runs again."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from schemas.retrain import RetrainParameters
from tests.chaos.retrains import (
    Retrain,
    new_home,
    one_more_version,
    quick_parameters,
    require_whole_files,
    runs_of,
    versions_of,
)
from tests.chaos.servers import Between, Server

pytestmark = [pytest.mark.chaos, pytest.mark.fault]

SEEDS = count(1)
STOPPED = ("teacher", "evaluate", "register")
OUTAGE_SECONDS = 20


def quick() -> RetrainParameters:
    return quick_parameters(next(SEEDS))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a version and with data that are ready."""
    folder = new_home(tmp_path_factory.mktemp("home"))
    Retrain(folder, quick_parameters(0)).succeed()
    return folder


@pytest.mark.parametrize(
    ("sign", "stage"),
    [*((signal.SIGTERM, stage) for stage in STOPPED), (signal.SIGINT, "teacher")],
    ids=[*(f"SIGTERM-{stage}" for stage in STOPPED), "SIGINT-teacher"],
)
def test_signal__stops_within_ten_seconds_and_goes_on(
    home: Path, sign: signal.Signals, stage: str, record_property: Callable[[str, object], None]
) -> None:
    parameters = quick()
    with one_more_version(home):
        first = Retrain(home, parameters)
        first.begins(stage)
        record_property("stops_after_seconds", seconds := round(first.send(sign), 1))
        assert seconds < 10
        assert first.process.returncode != 0
        require_whole_files(home)
        assert "RUNNING" not in {run.info.status for run in runs_of(home)}
        Retrain(home, parameters).succeed()


def _held(database: Path, seconds: float) -> threading.Thread:
    """Hold the only right to write to a SQLite database, from now on."""
    ready = threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            ready.set()
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    assert ready.wait(30)
    return thread


@pytest.mark.parametrize(
    ("name", "stage"), [("mlflow.db", "teacher"), ("mlflow.db", "register"), ("prefect/prefect.db", "teacher")]
)
def test_database__locked_for_half_a_minute(home: Path, name: str, stage: str) -> None:
    with one_more_version(home):
        retrain = Retrain(home, quick())
        retrain.begins(stage)
        _held(home / name, 30).join()
        retrain.succeed()


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, "Server"]]:
    """A home with data that are ready, and its MLflow behind a server."""
    folder = new_home(tmp_path_factory.mktemp("remote"))
    with Server(folder, "mlflow") as server:
        Retrain(folder, quick_parameters(0), MLFLOW_TRACKING_URI=server.url).succeed()
        yield folder, server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("a file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(folder: Path) -> Path:
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass
    return path


@pytest.mark.parametrize("stage", ["features", "teacher", "register"])
def test_disk__full_from_a_stage_on(small_disk: Path, stage: str) -> None:
    home, parameters = new_home(small_disk), quick()
    first = Retrain(home, parameters)
    first.begins(stage)
    filler = _fill(small_disk)
    assert first.process.wait(300) != 0
    require_whole_files(home)
    filler.unlink()
    Retrain(home, parameters).succeed()
    assert len(versions_of(home)) == 1
    assert {run.info.status for run in runs_of(home)} == {"FINISHED"}
    require_whole_files(home)


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A group of processes, to which the kernel grants 20 MB that they don't have already, and no more."""
    memory = Path("/sys/fs/cgroup/memory")
    group = (memory if memory.is_dir() else memory.parent) / f"chaos-{os.getpid()}"
    try:
        group.mkdir()
        name = "memory.limit_in_bytes" if memory.is_dir() else "memory.max"
        (group / name).write_text(str(20 << 20))
    except OSError:
        pytest.skip("memory can't be limited here")
    yield group
    time.sleep(1)  # its processes are gone when the kernel says so
    group.rmdir()


@pytest.mark.parametrize("stage", ["teacher", "evaluate"])
def test_memory__the_kernel_ends_it(home: Path, little_memory: Path, stage: str) -> None:
    parameters = quick()
    with one_more_version(home):
        first = Retrain(home, parameters)
        first.begins(stage)
        (little_memory / "cgroup.procs").write_text(str(first.process.pid))
        assert first.process.wait(300) == -signal.SIGKILL, first.said
        require_whole_files(home)
        Retrain(home, parameters).succeed()


@pytest.mark.parametrize("stage", STOPPED)
def test_mlflow__is_away_for_a_while(remote: tuple[Path, Server], stage: str) -> None:
    home, server = remote
    with one_more_version(home):
        retrain = Retrain(home, quick(), MLFLOW_TRACKING_URI=server.url)
        retrain.begins(stage)
        server.is_away(OUTAGE_SECONDS)
        retrain.succeed()


@pytest.mark.parametrize("stage", STOPPED)
def test_mlflow__answers_500_for_a_while(remote: tuple[Path, Server], stage: str) -> None:
    home, server = remote
    with Between(server.url) as between, one_more_version(home):
        retrain = Retrain(home, quick(), MLFLOW_TRACKING_URI=between.url)
        retrain.begins(stage)
        between.broken = True
        time.sleep(OUTAGE_SECONDS)
        between.broken = False
        retrain.succeed()
        assert between.refused, "nobody has asked in that time"
        between.shutdown()


def test_mlflow__is_away_for_longer_than_anybody_waits(remote: tuple[Path, Server]) -> None:
    home, server = remote
    parameters, patience = quick(), {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    with Between(server.url) as between, one_more_version(home):
        where = {"MLFLOW_TRACKING_URI": between.url}
        first = Retrain(home, parameters, **where, **patience)
        first.begins("register")
        between.broken = True
        assert first.process.wait(300) != 0
        between.broken = False
        second = Retrain(home, parameters, **where).succeed()
        assert {second.finished[stage] for stage in ("features", "teacher", "students")} == {"Cached"}
        between.shutdown()


def test_prefect__is_away_for_a_minute(home: Path) -> None:
    """The run goes on where its client waits long enough, else it ends; then it runs again."""
    parameters = quick()
    with Server(home, "prefect") as server, one_more_version(home):
        where = {"PREFECT_API_URL": f"{server.url}/api"}
        first = Retrain(home, parameters, **where)
        first.begins("teacher")
        server.is_away(60)
        if first.process.wait(300):
            Retrain(home, parameters, **where).succeed()
