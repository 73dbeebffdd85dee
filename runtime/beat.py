"""Whether the work of a run goes on: its process changes a tag of the run, which every machine can watch.

No clocks are compared: only whether the tag changes while it is watched.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from runtime.registry import client

BEAT_TAG = "tutelage.beat"
BEAT_SECONDS = 20.0
SILENT_SECONDS = 120.0
"""How long a run is watched before it counts as one whose process is gone."""
POLL_SECONDS = 5.0


def beat(run_id: str) -> None:
    """Change the tag once."""
    client().set_tag(run_id, BEAT_TAG, uuid.uuid4().hex)


def beat_of(run: Run) -> str | None:
    """The tag's value; None where the run has never had one."""
    return run.data.tags.get(BEAT_TAG)


@contextmanager
def beating(run_id: str) -> Iterator[None]:
    """Change the tag every BEAT_SECONDS while the block runs; a server that doesn't answer is asked again."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(MlflowException, OSError):
                beat(run_id)

    thread = threading.Thread(target=go_on, name=f"beat of {run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def goes_on(run: Run) -> bool:
    """Whether the tag of a run that another process has changes within SILENT_SECONDS, and before the run ends."""
    deadline = time.monotonic() + SILENT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        latest = client().get_run(run.info.run_id)
        if latest.info.status != "RUNNING" or beat_of(latest) != beat_of(run):
            return bool(latest.info.status == "RUNNING")
    return False
