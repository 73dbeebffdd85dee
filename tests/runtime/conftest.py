"""No test here has a Prefect server."""

from collections.abc import Iterator

import pytest

import tasks.retrain.register  # noqa: F401 - stages are imported before what they publish by is replaced
from tests.runtime.builders import Published, register_old, serverless
from tests.tasks.conftest import features, meter_file, parameters, readings, spec, validated  # noqa: F401


@pytest.fixture(autouse=True)
def published() -> Iterator[Published]:
    """What a test's stages publish."""
    with serverless() as calls:
        yield calls


@pytest.fixture(scope="session")
def old_version() -> tuple[str, str]:
    """A refit version that the code before 0.2 registered: the model's name and the version."""
    return register_old()
