"""The form for a decision on a version, and the decision's effect on the registry."""

import datetime as dt
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from prefect.input import create_flow_run_input, keyset_from_base_key
from prefect.runtime import flow_run

from runtime.champion import turn_to_change
from runtime.registry import champion_version, client, find_version
from runtime.stage import stage
from schemas.promotion import Decision, Promoted

QUESTION = "decision"


@stage("describe", run_name="describe {name} {version}")
def describe_version(name: str, version: int) -> str:
    """The information for a decision: the version's card, and its comparison with the champion.

    Raises RegistryError where there is no such version.
    """
    candidate = find_version(name, version)
    champion = champion_version(name)
    comparison = f"The champion is version {champion}." if champion else "There is no champion."
    promotion = candidate.tags.get("promotion")
    said = f"{comparison} Version {version} {promotion}." if promotion else comparison
    return f"{said}\n\n{candidate.description or ''}"


def ask(form: type[Decision], *, wait_minutes: int) -> Decision:
    """Suspend the flow until a person has filled in the form; after `wait_minutes` the run fails.

    Prefect 3.8 stores the form after it has suspended the run, and where that fails, or the answer to the suspension is
    lost, the run stays suspended: nobody could answer it. So what is not there of the form is stored then.
    """
    try:
        return suspend_flow_run(wait_for_input=form, timeout=60 * wait_minutes, key=QUESTION)
    except Pause:
        _store_form(form)
        raise
    except Exception:
        state = _store_form(form)
        if state is not None and state.name == "Suspended":
            raise Pause(state=state) from None
        raise


def _store_form(form: type[Decision]) -> State[Any] | None:
    """Store what Prefect has not stored of the form, its fields before its description; return the run's state."""
    keyset = keyset_from_base_key(f"suspended-{QUESTION}")
    with get_client(sync_client=True) as api:
        run = api.read_flow_run(UUID(flow_run.id))
        inputs = api.filter_flow_run_input(run.id, key_prefix="suspended-", limit=10, exclude_keys=set())
    stored = {each.key for each in inputs}
    if keyset["schema"] not in stored:
        form.save(keyset)
    elif keyset["description"] not in stored and form._description:
        create_flow_run_input(keyset["description"], form._description)
    return run.state


@stage("set champion", run_name="champion {name} {version}")
def set_champion(name: str, version: int, *, action: str, by: str, why: str) -> Promoted:
    """Make a version the champion; record who did it, why, when, and the previous champion in its tags.

    action: the prefix of the tags, `approval` or `rollback`

    Raises RegistryError where there is no such version, or others change the champion all the time.
    """
    find_version(name, version)
    at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    with turn_to_change(name) as turn:
        for tag, value in {"by": by, "why": why, "at": at}.items():
            client().set_model_version_tag(name, str(version), f"{action}.{tag}", value)
        turn.make_champion(str(version), action)
    get_run_logger().info("%s: champion %s after %s, by %s: %s", name, version, turn.before or "none", by, why)
    return Promoted(name=name, before=turn.before, after=str(version))


@stage("decline", run_name="decline {name} {version}")
def decline(name: str, version: int, *, by: str, why: str) -> Promoted:
    """Keep the champion, and record in the version's tags who declined it, and why."""
    client().set_model_version_tag(name, str(version), "approval.declined", f"{by}: {why}")
    champion = champion_version(name)
    return Promoted(name=name, before=champion, after=champion)
