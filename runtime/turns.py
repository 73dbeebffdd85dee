"""Turns: something that one process at a time may do, whichever machine it is on.

The tracking server keeps a turn: it is a registered model of its own, because the server refuses a name that is taken.
"""

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from runtime.registry import NOT_THERE, client
from tutelage.errors import RegistryError

LEASE_SECONDS = 60.0
"""How long a turn lasts at most: longer ones are those of processes that were killed, and others take over."""
WAIT_SECONDS = 300.0
POLL_SECONDS = 0.2
TAKEN = ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's error codes for a name that is taken; the second, where it was given free before MLflow had looked at it."""
OWNER = "owner"


@contextmanager
def turn(name: str, doing: str) -> Iterator[str]:
    """Wait for a turn, yield its owner, and end it afterwards.

    doing: what others do meanwhile, for the sentence
    Raises RegistryError where others' turns take longer than WAIT_SECONDS.
    """
    owner = uuid.uuid4().hex
    _take(name, owner, doing)
    try:
        yield owner
    finally:
        if owner_of(name) == owner:
            _end(name)


def owner_of(name: str) -> str | None:
    """Who has a turn; None where nobody has."""
    try:
        return client().get_registered_model(_model_of(name)).tags.get(OWNER)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return None


def _model_of(name: str) -> str:
    return f"{name}.turn"


def _take(name: str, owner: str, doing: str) -> None:
    begun = since = time.monotonic()
    seen = None
    while not _taken(name, owner):
        present = owner_of(name)
        if present != seen:
            seen, since = present, time.monotonic()
        elif present is not None and time.monotonic() - since > LEASE_SECONDS and owner_of(name) == present:
            _end(name)  # looked at once more: another one who waits may have taken over meanwhile
        if time.monotonic() - begun > WAIT_SECONDS:
            raise RegistryError(f"others have been {doing} for {WAIT_SECONDS:.0f} s: try again")
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # so that those who wait don't ask at once


def _taken(name: str, owner: str) -> bool:
    """Whether the turn is the owner's."""
    try:
        client().create_registered_model(_model_of(name), tags={OWNER: owner})
    except MlflowException as error:
        if error.error_code not in TAKEN:
            raise
        return owner_of(name) == owner  # a request whose answer was lost is sent twice
    return True


def _end(name: str) -> None:
    try:
        client().delete_registered_model(_model_of(name))
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
