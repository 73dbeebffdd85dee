"""What killed processes have left is ended with the tests."""

import contextlib
from collections.abc import Iterator

import psutil
import pytest

from tests.chaos.retrains import servers_of


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    for server in servers_of(tmp_path_factory.getbasetemp()):
        with contextlib.suppress(psutil.NoSuchProcess):
            server.kill()
