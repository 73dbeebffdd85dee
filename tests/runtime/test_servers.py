"""Which temporary servers are ended. What stands for a server here sleeps; `tests.chaos` has the real ones."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from runtime.paths import STARTED_BY
from runtime.servers import end_left_servers

STARTER = """
import os, subprocess, sys, time
import runtime
environment = os.environ | {"PREFECT__SERVER_EPHEMERAL": "1"}
server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def starter() -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A process of this home, and the server that it has started."""
    process = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    server = psutil.Process(int(process.stdout.readline()))
    yield process, server
    process.stdout.close()
    process.kill()
    process.wait()
    if server.is_running():
        server.kill()


@pytest.mark.fault
def test_end_left_servers__ends_that_of_a_killed_process(
    starter: tuple[subprocess.Popen[str], psutil.Process],
) -> None:
    process, server = starter
    end_left_servers()
    assert server.is_running(), "its process is alive"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and still has its id
    end_left_servers()
    assert not server.is_running()


def test_end_left_servers__leaves_those_of_another_home() -> None:
    assert os.environ[STARTED_BY] == str(os.getpid())
    sleeping = "import time; time.sleep(600)"
    for change in ({"PREFECT_HOME": "/another"}, {"PREFECT__SERVER_EPHEMERAL": "0"}):
        nobody = {"PREFECT__SERVER_EPHEMERAL": "1", STARTED_BY: "4194305"}  # above the largest id
        server = subprocess.Popen([sys.executable, "-c", sleeping], env=os.environ | nobody | change)
        end_left_servers()
        assert server.poll() is None
        server.kill()
        server.wait()
    server = subprocess.Popen([sys.executable, "-c", sleeping], env=os.environ | nobody)
    end_left_servers()
    assert server.poll() is not None
