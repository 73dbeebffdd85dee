"""A real PostgreSQL process with a data folder of its own, on a free port."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MISSING = "PostgreSQL is missing: apt-get install --yes postgresql"
PASSWORD = "for-a-test"


def _program(name: str) -> str:
    """Debian keeps the server's programs out of the path."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.environ["PATH"].split(os.pathsep))]
    found = next((str(place / name) for place in places if (place / name).is_file()), None)
    return found or pytest.fail(MISSING)


def _as_somebody() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "--user", "postgres", "--"] if os.geteuid() == 0 else []


@contextmanager
def running_postgres(folder: Path, port: int) -> Iterator[str]:
    """Make and start a server; yield its URL, with a user that must give a password."""
    folder.mkdir()
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, secret):
            shutil.chown(path, "postgres")
        for parent in folder.parents:  # pytest's folders are its user's alone
            if parent.stat().st_uid == 0 and parent != Path("/tmp") and parent.is_relative_to("/tmp"):
                parent.chmod(0o711)
    options = ["--username", "tutelage", "--auth", "scram-sha-256", "--pwfile", str(secret), "--no-sync"]
    initialise = [*_as_somebody(), _program("initdb"), "--pgdata", str(folder / "data"), *options]
    done = subprocess.run(initialise, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    serve = [_program("postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*_as_somebody(), *serve, "-k", str(folder), "-c", "fsync=off"], stdout=log, stderr=log, cwd="/"
        )
    try:
        deadline = time.monotonic() + 60
        while b"ready to accept connections" not in (folder / "log").read_bytes():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"postgresql://tutelage:{PASSWORD}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)
