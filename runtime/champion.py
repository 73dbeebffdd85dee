"""Changes of a champion: one at a time, whoever makes them from whichever machine, and each with its record.

A retrain, an approval and a rollback may want to change the champion at the same moment. Each takes a turn
(`runtime.turns`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runtime.registry import CHAMPION, champion_version, client, find_version
from runtime.turns import LEASE_SECONDS, owner_of, turn
from tutelage.errors import RegistryError

ACTIONS = ("promotion", "approval", "rollback")
"""What makes a champion. Its version's tag `ACTION.from` names the champion that it replaced, or `none`."""


@dataclass(frozen=True)
class Turn:
    """The right to change a model's champion; before: the present champion's version, None where there is none."""

    name: str
    owner: str
    before: str | None

    def make_champion(self, version: str, action: str) -> None:
        """Make a version the champion by one of ACTIONS, and record which one it replaces; one that is it stays it.

        Raises RegistryError where the turn was lost to others meanwhile.
        """
        if owner_of(self.name) != self.owner:
            raise RegistryError(
                f"version {version} of {self.name} did not become the champion: the registry took longer than "
                f"{LEASE_SECONDS:.0f} s to answer, and others change the champion by now"
            )
        if version == self.before:
            return
        client().set_model_version_tag(self.name, version, f"{action}.from", self.before or "none")
        client().set_registered_model_alias(self.name, CHAMPION, version)


@contextmanager
def turn_to_change(name: str) -> Iterator[Turn]:
    """Wait for the turn to change a model's champion, and end it afterwards.

    Raises RegistryError where others' turns take longer than WAIT_SECONDS.
    """
    with turn(name, f"changing the champion of {name}") as owner:
        yield Turn(name, owner, champion_version(name))


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
