import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import runtime.turns
from runtime.champion import Turn, champion_to_meet, turn_to_change
from runtime.registry import CHAMPION, champion_version, client, find_version
from runtime.turns import OWNER
from tasks.promotion.decisions import set_champion
from tests.runtime.builders import new_model
from tutelage.errors import RegistryError


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A model of its own with four versions."""
    return new_model(tmp_path, versions=4)


def taken(name: str, owner: str) -> None:
    """Somebody has the turn."""
    client().create_registered_model(f"{name}.turn", tags={OWNER: owner})


@pytest.mark.fault
def test_turn_to_change__changes_the_champion_and_leaves_nothing(name: str) -> None:
    with turn_to_change(name) as turn:
        assert turn.before is None
        turn.make_champion("2", "rollback")
    with turn_to_change(name) as turn:
        assert turn.before == "2"
    assert champion_version(name) == "2"
    assert client().search_registered_models(f"name = '{name}.turn'") == []


@pytest.mark.fault
def test_turn_to_change__ends_where_the_change_fails(name: str) -> None:
    with pytest.raises(ZeroDivisionError), turn_to_change(name):
        raise ZeroDivisionError
    with turn_to_change(name) as turn:
        assert turn.before is None


@pytest.mark.fault
def test_turn_to_change__is_one_at_a_time(name: str) -> None:
    inside, most = 0, []

    def change(_: int) -> None:
        nonlocal inside
        with turn_to_change(name):
            inside += 1
            most.append(inside)
            time.sleep(0.05)
            inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(8)))
    assert most == [1] * 8


@pytest.mark.fault
def test_turn_to_change__takes_over_from_a_killed_process_and_never_from_a_living_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.turns, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(runtime.turns, "POLL_SECONDS", 0.05)
    taken(name, "a killed process")
    begun = time.monotonic()
    with turn_to_change(name) as turn:
        turn.make_champion("1", "rollback")
    assert time.monotonic() - begun > 1.0

    # Others follow one another, none of them longer than a lease: who waits takes nothing from them.
    taken(name, "first")

    def follow() -> None:
        for owner in ("second", "third", None):
            time.sleep(0.7)
            if owner:
                client().set_registered_model_tag(f"{name}.turn", OWNER, owner)
            else:
                client().delete_registered_model(f"{name}.turn")

    others = threading.Thread(target=follow)
    others.start()
    begun = time.monotonic()
    with turn_to_change(name):
        others.join(0)
        assert not others.is_alive()
    assert time.monotonic() - begun > 2.0


@pytest.mark.fault
def test_turn_to_change__takes_nothing_from_one_that_took_over_first(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait for a process that was killed; the other one takes its turn right before this one would."""
    monkeypatch.setattr(runtime.turns, "LEASE_SECONDS", 0.0)
    monkeypatch.setattr(runtime.turns, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(runtime.turns, "POLL_SECONDS", 0.05)
    taken(name, "a killed process")
    real, looks = runtime.turns.owner_of, 0

    def owner_of(turn: str) -> str | None:
        nonlocal looks
        looks += 1
        seen = real(turn)
        if looks == 4:  # the second look at who has it, after two attempts to take it
            client().set_registered_model_tag(f"{name}.turn", OWNER, "the other one")
        elif looks > 4:
            monkeypatch.setattr(runtime.turns, "LEASE_SECONDS", 60.0)
        return seen

    monkeypatch.setattr(runtime.turns, "owner_of", owner_of)
    with pytest.raises(RegistryError, match="try again"):
        turn_to_change(name).__enter__()
    assert real(name) == "the other one"


@pytest.mark.fault
def test_turn_to_change__says_that_others_do_not_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.turns, "WAIT_SECONDS", 0.3)
    taken(name, "somebody")
    with pytest.raises(RegistryError, match=rf"^others have been changing the champion of {name} for 0 s: try again$"):
        turn_to_change(name).__enter__()


@pytest.mark.fault
def test_make_champion__of_a_turn_that_was_lost_changes_nothing(name: str) -> None:
    client().set_registered_model_alias(name, CHAMPION, "1")
    taken(name, "somebody else")
    with pytest.raises(RegistryError, match=f"^version 2 of {name} did not become the champion: .* others change"):
        Turn(name, "me", "1").make_champion("2", "rollback")
    assert champion_version(name) == "1"


def test_set_champion__by_many_at_once_leaves_one_champion_and_a_true_record(name: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        work = [
            pool.submit(set_champion.fn, name, version, action="rollback", by=f"operator {version}", why="at once")
            for version in range(1, 5)
        ]
        changes = [each.result() for each in work]
    champion = champion_version(name)
    replaced = {change.after: change.before for change in changes}
    path = [champion]
    while path[-1] is not None:
        path.append(replaced[path[-1]])
        tags = find_version(name, path[-2]).tags
        assert tags["rollback.from"] == (path[-1] or "none")
        assert tags["rollback.by"] == f"operator {path[-2]}"
    assert len(path) == 5, "each change has followed another one"


def test_champion_to_meet__is_never_the_own_version(name: str, tmp_path: Path) -> None:
    run_id = client().create_run("0").info.run_id
    own = str(client().create_model_version(name, tmp_path.as_uri(), run_id).version)
    assert champion_to_meet(name, run_id=run_id) is None
    client().set_registered_model_alias(name, CHAMPION, "2")
    assert champion_to_meet(name, run_id=run_id) == "2"
    client().set_registered_model_alias(name, CHAMPION, own)
    assert champion_to_meet(name, run_id=run_id) is None
    set_champion.fn(name, 1, action="rollback", by="Ada", why="a start")
    set_champion.fn(name, int(own), action="approval", by="Ada", why="it is better")
    assert champion_to_meet(name, run_id=run_id) == "1"


@pytest.mark.fault
def test_make_champion__again_leaves_the_record_of_what_it_replaced(name: str) -> None:
    for version in ("1", "2", "2"):
        with turn_to_change(name) as turn:
            turn.make_champion(version, "rollback")
    assert find_version(name, 2).tags["rollback.from"] == "1"
