import datetime as dt
from pathlib import Path

import pytest

import tasks.promotion.decisions
from runtime.registry import CHAMPION, champion_version, client, find_version
from schemas.promotion import Promoted
from tasks.promotion.decisions import decline, describe_version, set_champion
from tests.runtime.builders import Log, new_model
from tutelage.errors import RegistryError


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A model of its own with two versions, the second with a card and a reason."""
    model = new_model(tmp_path, versions=2)
    client().update_model_version(model, "2", description="# the card")
    client().set_model_version_tag(model, "2", "promotion", "awaits a person's approval")
    return model


def test_describe_version__is_the_card_next_to_the_champion(name: str) -> None:
    assert describe_version.fn(name, 2) == "There is no champion. Version 2 awaits a person's approval.\n\n# the card"
    client().set_registered_model_alias(name, CHAMPION, "1")
    assert describe_version.fn(name, 2).startswith("The champion is version 1. Version 2 awaits a person's approval.\n")
    assert describe_version.fn(name, 1) == "The champion is version 1.\n\n"


@pytest.mark.parametrize("action", ["approval", "rollback"])
def test_set_champion__keeps_who_why_and_from_what(name: str, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    monkeypatch.setattr(tasks.promotion.decisions, "get_run_logger", lambda: log)
    client().set_registered_model_alias(name, CHAMPION, "1")
    promoted = set_champion.fn(name, 2, action=action, by="Ada", why="lower CRPS")
    assert promoted == Promoted(name=name, before="1", after="2")
    assert champion_version(name) == "2"
    tags = find_version(name, 2).tags
    decided = {part: tags[f"{action}.{part}"] for part in ("by", "why", "from")}
    assert decided == {"by": "Ada", "why": "lower CRPS", "from": "1"}
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(tags[f"{action}.at"])
    assert dt.timedelta(0) <= age < dt.timedelta(minutes=5)
    assert [tag for tag in find_version(name, 1).tags if tag.startswith(action)] == []
    [line] = log.lines
    assert all(part in line for part in (name, "2", "Ada", "lower CRPS"))


def test_set_champion__of_a_model_without_one(name: str) -> None:
    assert set_champion.fn(name, 1, action="approval", by="Ada", why="") == Promoted(name=name, before=None, after="1")
    assert find_version(name, 1).tags["approval.from"] == "none"


def test_set_champion__of_a_version_that_is_not_there_changes_nothing(name: str) -> None:
    client().set_registered_model_alias(name, CHAMPION, "1")
    with pytest.raises(RegistryError, match=f"{name} has no version 3"):
        set_champion.fn(name, 3, action="rollback", by="Ada", why="a typo")
    assert champion_version(name) == "1"
    with pytest.raises(RegistryError, match=f"{name} has no version 3"):
        describe_version.fn(name, 3)


@pytest.mark.parametrize("champion", [None, "1"])
def test_decline__leaves_the_champion_and_keeps_the_reason(name: str, champion: str | None) -> None:
    if champion is not None:
        client().set_registered_model_alias(name, CHAMPION, champion)
    assert decline.fn(name, 2, by="Ada", why="too little data") == Promoted(name=name, before=champion, after=champion)
    assert champion_version(name) == champion
    assert find_version(name, 2).tags["approval.declined"] == "Ada: too little data"
