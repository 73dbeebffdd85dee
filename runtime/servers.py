"""Temporary Prefect servers: without an address of a server, each process starts one, which outlives a kill -9."""

import os
from contextlib import suppress

import psutil

from runtime.paths import STARTED_BY

GRACE_SECONDS = 5


def end_left_servers() -> None:
    """End the temporary servers of this home, 200 MB each, whose process is gone; those of living ones go on."""
    left = [process for process in psutil.process_iter() if _is_left(process)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=GRACE_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _is_left(process: psutil.Process) -> bool:
    try:
        environment = process.environ()
        is_ours = environment.get("PREFECT_HOME") == os.environ["PREFECT_HOME"]
        if not is_ours or environment.get("PREFECT__SERVER_EPHEMERAL") != "1":
            return False
        starter = psutil.Process(int(environment[STARTED_BY]))
        # An id may be given again, and a process that nobody has waited for still has its own.
        return starter.create_time() > process.create_time() or starter.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess as gone:
        return gone.pid != process.pid
    except (psutil.AccessDenied, KeyError):
        return False
