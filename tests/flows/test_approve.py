import prefect.flow_runs
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow

from schemas.promotion import Decision
from tasks.promotion.decisions import ask

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow
def question() -> Decision:
    return ask(Decision.with_initial_data(description="the card"), wait_minutes=1)


@pytest.fixture
def asked() -> FlowRun:
    """A run of a deployment: no other can be suspended."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(question), "any")
        return client.create_flow_run_from_deployment(deployment)


def stored(run: FlowRun) -> set[str]:
    with get_client(sync_client=True) as client:
        inputs = client.filter_flow_run_input(run.id, key_prefix="", limit=10, exclude_keys=set())
    return {each.key for each in inputs}


def test_ask__a_person_s_answer_is_the_decision(asked: FlowRun) -> None:
    with pytest.raises(Pause):
        run_flow(question, flow_run=asked)
    with get_client(sync_client=True) as client:
        client.resume_flow_run(asked.id, run_input={"promote": True, "by": "Ada"})
        decision = run_flow(question, flow_run=client.read_flow_run(asked.id))
    assert (decision.promote, decision.by) == (True, "Ada")


KEYS = ["suspended-decision-schema", "suspended-decision-description"]


@pytest.mark.fault
@pytest.mark.parametrize("failing", KEYS)
@pytest.mark.parametrize("arrives", [False, True])
def test_ask__what_prefect_could_not_store_of_the_form_is_stored_again(
    asked: FlowRun, failing: str, arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storing it fails once, or its answer is lost."""
    create, failures = SyncPrefectClient.create_flow_run_input, [ConnectionError("the connection broke")]

    def fails_once(client: SyncPrefectClient, *args: object, **values: object) -> None:
        lost = values["key"] == failing and failures
        if not lost or arrives:
            create(client, *args, **values)
        if lost:
            raise failures.pop()

    monkeypatch.setattr(SyncPrefectClient, "create_flow_run_input", fails_once)
    with pytest.raises(Pause):
        run_flow(question, flow_run=asked)
    assert stored(asked) == set(KEYS)


@pytest.mark.fault
def test_ask__a_suspension_whose_answer_is_lost_has_its_form(asked: FlowRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Prefect's client sees it: it sends the state again, and hears that the run is suspended already."""
    propose, lost = prefect.flow_runs.propose_state_sync, []

    def proposed(*args: object, **values: object) -> object:
        state = propose(*args, **values)
        if state.name == "Suspended" and not lost:
            lost.append(state)
            raise Pause(state=state)
        return state

    monkeypatch.setattr(prefect.flow_runs, "propose_state_sync", proposed)
    with pytest.raises(Pause):
        run_flow(question, flow_run=asked)
    assert lost
    assert stored(asked) == set(KEYS)
