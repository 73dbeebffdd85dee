"""One home for all tests, set before anything imports Prefect or MLflow, and one Prefect harness for the flows."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SCREENSHOTS = Path(os.environ.get("TUTELAGE_HOME", "var")).resolve() / "screenshots"
HOME = Path(tempfile.mkdtemp(prefix="tutelage-tests-"))
os.environ["TUTELAGE_HOME"] = str(HOME)
os.environ["TUTELAGE_DATASETS"] = str(HOME / "datasets")
for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH"):
    os.environ.pop(name, None)

import pytest  # noqa: E402

import runtime  # noqa: E402, F401
from tests.household import write_slice  # noqa: E402


@pytest.fixture(scope="session")
def household_slice() -> str:
    """The name of a dataset that holds 40 real days of the household, the long outage of August 2010 not among them."""
    return write_slice(HOME / "datasets", name="household-slice", days=40)


@pytest.fixture(scope="module")
def begun() -> float:
    """When the module's tests began. Other modules' files in the home are older, and not to be touched."""
    return time.time()


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A real Prefect API with a database of its own, once for all flow tests."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
