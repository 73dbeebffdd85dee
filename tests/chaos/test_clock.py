"""The machine's clock jumps while a retrain runs: of everything in its process group, by libfaketime.

Clocks that measure (monotonic ones) go on, as they do where a person or a time service sets the clock.
"""

import importlib.util
from pathlib import Path

import pytest

from tests.chaos.retrains import (
    FORECAST,
    Retrain,
    make_champion,
    new_home,
    one_more_version,
    quick_parameters,
    runs_of,
    versions_of,
)

pytestmark = [pytest.mark.chaos, pytest.mark.fault]

DAY_SECONDS = 86_400


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a champion and with data that are ready."""
    folder = new_home(tmp_path_factory.mktemp("home"))
    Retrain(folder, quick_parameters(0)).succeed()
    make_champion(folder, 1)
    return folder


class Clock:
    """The clock of the processes that have its environment; it begins right."""

    def __init__(self, folder: Path) -> None:
        package = importlib.util.find_spec("libfaketime")
        assert package is not None
        assert package.origin is not None
        self._file = folder / "clock"
        self.jump(0)
        self.environment = {
            "LD_PRELOAD": str(Path(package.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Set it by this many seconds ahead, or behind."""
        part = self._file.with_suffix(".part")
        part.write_text(f"{seconds:+d}")
        part.replace(self._file)


@pytest.mark.parametrize("days", [1, -1], ids=["ahead", "back"])
@pytest.mark.parametrize("stage", ["teacher", "register"])
def test_clock__jumps_by_a_day(home: Path, tmp_path: Path, stage: str, days: int) -> None:
    clock = Clock(tmp_path)
    with one_more_version(home):
        retrain = Retrain(home, quick_parameters(len(versions_of(home))), **clock.environment)
        retrain.begins(stage)
        clock.jump(days * DAY_SECONDS)
        retrain.succeed()
    newest = max(runs_of(home), key=lambda run: int(run.info.start_time or 0))
    begun, ended = int(newest.info.start_time or 0), int(newest.info.end_time or 0)
    assert days * (ended - begun) > 0.9 * DAY_SECONDS * 1000, "MLflow's times show that it has jumped"
    Retrain(home, quick_parameters(0), FORECAST).succeed()
