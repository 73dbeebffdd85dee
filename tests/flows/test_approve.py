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


def test_ask__a_form_that_prefect_could_not_store_is_stored_again(
    asked: FlowRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = SyncPrefectClient.create_flow_run_input
    failures = iter([ConnectionError("the connection broke")])

    def fails_once(*args: object, **kwargs: object) -> None:
        if failure := next(failures, None):
            raise failure
        create(*args, **kwargs)

    monkeypatch.setattr(SyncPrefectClient, "create_flow_run_input", fails_once)
    with pytest.raises((Pause, ConnectionError)):
        run_flow(question, flow_run=asked)
    keyset = {"suspended-decision-schema", "suspended-decision-description"}
    assert stored(asked) == keyset
