"""kill -9 in every stage of a retrain, at random moments, and then again: it must end as if nothing had been."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.retrains import (
    CACHED,
    STAGES,
    Retrain,
    new_home,
    parameters_of,
    record_in,
    require_one_end,
    require_whole_files,
    servers_of,
)

pytestmark = [pytest.mark.chaos, pytest.mark.fault]

ROUNDS = 5
KILLS = [(number, stage) for number in range(ROUNDS) for stage in STAGES]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The home of a retrain that nothing has disturbed, and the seconds of its stages."""
    home = new_home(tmp_path_factory.mktemp("undisturbed"))
    return home, Retrain(home, parameters_of()).succeed().seconds


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One home for each round."""
    return [new_home(tmp_path_factory.mktemp(f"round-{number + 1}")) for number in range(ROUNDS)]


@pytest.fixture(scope="module")
def done() -> list[set[str]]:
    """By round, the stages with cached results that were finished before a kill."""
    return [set() for _ in range(ROUNDS)]


@pytest.mark.parametrize(("number", "stage"), KILLS, ids=[f"{stage}-{number + 1}" for number, stage in KILLS])
def test_kill_9__leaves_only_whole_files_and_what_was_finished(
    number: int,
    stage: str,
    homes: list[Path],
    done: list[set[str]],
    undisturbed: tuple[Path, dict[str, float]],
    record_property: Callable[[str, object], None],
) -> None:
    home, seconds = homes[number], undisturbed[1]
    retrain = Retrain(home, parameters_of())
    retrain.begins(stage)
    time.sleep(random.Random(f"{number} {stage}").uniform(0, seconds[stage]))
    retrain.send()
    assert retrain.process.returncode == -9, "it has ended before the kill"
    finished = retrain.finished
    record_property("hit", next(each for each in STAGES if each not in finished))
    # A kill that came late has finished more than this one reaches.
    again = done[number] & finished.keys()
    assert {finished[each] for each in again} <= {"Cached"}, "what was finished before a kill is used"
    done[number] |= set(CACHED) & finished.keys()
    require_whole_files(home)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_kill_9__ends_as_if_it_had_not_been(
    number: int, homes: list[Path], undisturbed: tuple[Path, dict[str, float]]
) -> None:
    retrain = Retrain(homes[number], parameters_of()).succeed()
    assert {retrain.finished[stage] for stage in CACHED} == {"Cached"}
    require_one_end(homes[number])
    assert record_in(homes[number]).results == record_in(undisturbed[0]).results
    assert not servers_of(homes[number]), "what the kills have left is ended"
