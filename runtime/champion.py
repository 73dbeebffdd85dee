"""Changes of a champion: one at a time, whoever makes them from whichever machine, and each with its record.

A retrain, an approval and a rollback may want to change the champion at the same moment. Each takes a turn. The
tracking server keeps it: a turn is a registered model of its own, because the server refuses a name that is taken.
"""

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow.exceptions import MlflowException

from runtime.registry import CHAMPION, NOT_THERE, champion_version, client, find_version
from tutelage.errors import RegistryError

LEASE_SECONDS = 60.0
"""How long a turn lasts at most: longer ones are those of processes that were killed, and others take over."""
WAIT_SECONDS = 300.0
POLL_SECONDS = 0.2
TAKEN = ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's error codes for a name that is taken; the second, where it was given free before MLflow had looked at it."""
OWNER = "owner"
ACTIONS = ("promotion", "approval", "rollback")
"""What makes a champion. Its version's tag `ACTION.from` names the champion that it replaced, or `none`."""


@dataclass(frozen=True)
class Turn:
    """The right to change a model's champion; before: the present champion's version, None where there is none."""

    name: str
    owner: str
    before: str | None

    def make_champion(self, version: str, action: str) -> None:
        """Make a version the champion by one of ACTIONS, and record which one it replaces.

        Raises RegistryError where the turn was lost to others meanwhile.
        """
        if _owner(self.name) != self.owner:
            raise RegistryError(
                f"version {version} of {self.name} did not become the champion: the registry took longer than "
                f"{LEASE_SECONDS:.0f} s to answer, and others change the champion by now"
            )
        client().set_model_version_tag(self.name, version, f"{action}.from", self.before or "none")
        client().set_registered_model_alias(self.name, CHAMPION, version)


@contextmanager
def turn_to_change(name: str) -> Iterator[Turn]:
    """Wait for the turn to change a model's champion, and end it afterwards.

    Raises RegistryError where others' turns take longer than WAIT_SECONDS.
    """
    owner = uuid.uuid4().hex
    _take(name, owner)
    try:
        yield Turn(name, owner, champion_version(name))
    finally:
        if _owner(name) == owner:
            _end(name)


def champion_to_meet(name: str, *, run_id: str) -> str | None:
    """The champion that a run's candidate meets; None where there is none.

    It is never the run's own version: where that has become the champion before the run was interrupted, it is the one
    before.
    """
    version = champion_version(name)
    if version is None:
        return None
    champion = find_version(name, version)
    if champion.run_id != run_id:
        return version
    tags = (f"{action}.from" for action in ACTIONS)
    replaced = next((champion.tags[tag] for tag in tags if tag in champion.tags), "none")
    return None if replaced == "none" else replaced


def _model_of_turn(name: str) -> str:
    return f"{name}.turn"


def _owner(name: str) -> str | None:
    """Who has the turn; None where nobody has."""
    try:
        return client().get_registered_model(_model_of_turn(name)).tags.get(OWNER)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return None


def _take(name: str, owner: str) -> None:
    begun = since = time.monotonic()
    seen = None
    while not _taken(name, owner):
        present = _owner(name)
        if present != seen:
            seen, since = present, time.monotonic()
        elif present is not None and time.monotonic() - since > LEASE_SECONDS:
            _end(name)
        if time.monotonic() - begun > WAIT_SECONDS:
            raise RegistryError(f"others have been changing the champion of {name} for {WAIT_SECONDS:.0f} s: try again")
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # so that those who wait don't ask at once


def _taken(name: str, owner: str) -> bool:
    """Whether the turn is the owner's."""
    try:
        client().create_registered_model(_model_of_turn(name), tags={OWNER: owner})
    except MlflowException as error:
        if error.error_code not in TAKEN:
            raise
        return _owner(name) == owner  # a request whose answer was lost is sent twice
    return True


def _end(name: str) -> None:
    try:
        client().delete_registered_model(_model_of_turn(name))
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
