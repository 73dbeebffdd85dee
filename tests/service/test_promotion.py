"""Who becomes the champion, decided by people on the real servers."""

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from tests.service.conftest import SMALL, Up, ran, until

pytestmark = [pytest.mark.service, pytest.mark.slow]

NAME = "household-24h"


def champion() -> int:
    return int(mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion").version)


def approvals() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["approve"])))


def asking(version: int) -> FlowRun | None:
    """The suspended run that asks about a version, once its form is stored, which Prefect does after it suspends."""
    for run in approvals():
        if run.parameters["parameters"]["version"] == version and run.state.name == "Suspended" and has_form(run):
            return run
    return None


def has_form(run: FlowRun) -> bool:
    with get_client(sync_client=True) as client:
        inputs = client.filter_flow_run_input(run.id, key_prefix="suspended-", limit=10, exclude_keys=set())
    return run.state.state_details.run_input_keyset["schema"] in {stored.key for stored in inputs}


def state_of(run: FlowRun) -> str:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state.name


@pytest.fixture(scope="module")
def waiting(retrained: str, service: Up) -> int:
    """A version whose retrain asks for approval."""
    run = ran("retrain/household", SMALL | {"promotion": "approval", "seed": 1, "refit": False})
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{NAME}'")
    [version] = [v for v in versions if v.tags["prefect.flow_run_id"] == str(run.id)]
    assert "awaits a person's approval" in version.tags["promotion"]
    assert champion() != int(version.version)
    return int(version.version)


def test_approve__a_time_out_promotes_nothing(waiting: int) -> None:
    before = champion()
    asked = {"name": NAME, "version": waiting, "wait_minutes": 1}
    run = run_deployment("approve/any", parameters={"parameters": asked}, timeout=0)
    until(lambda: state_of(run) == "Suspended")
    until(lambda: state_of(run) == "Failed")
    assert champion() == before


def test_approve__a_form_without_a_name_is_refused(waiting: int) -> None:
    run = until(lambda: asking(waiting))
    with get_client(sync_client=True) as client:
        answer = client.resume_flow_run(run.id, run_input={"promote": True})
    assert answer.status.value == "REJECT"
    assert "by" in answer.details.reason


def test_approve__a_person_s_yes_promotes(waiting: int) -> None:
    before = champion()
    run = until(lambda: asking(waiting))
    with get_client(sync_client=True) as client:
        answer = client.resume_flow_run(run.id, run_input={"promote": True, "by": "ada", "why": "looks right"})
    assert answer.status.value == "ACCEPT", answer.details
    until(lambda: state_of(run) == "Completed")
    assert champion() == waiting
    tags = mlflow.MlflowClient().get_model_version(NAME, str(waiting)).tags
    assert (tags["approval.by"], tags["approval.why"]) == ("ada", "looks right")
    assert tags["approval.from"] == str(before)


def test_rollback__sets_an_earlier_version_and_says_who_and_why(waiting: int) -> None:
    ran("rollback/any", {"name": NAME, "version": 1, "by": "grace", "why": "the new one drifts"})
    assert champion() == 1
    tags = mlflow.MlflowClient().get_model_version(NAME, "1").tags
    assert (tags["rollback.by"], tags["rollback.why"]) == ("grace", "the new one drifts")
