"""Set up the Prefect server before a worker starts: work pool, queue `gpu`, what ends lost runs, and missed runs."""

import datetime as dt

from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled
from prefect.workers.process import ProcessWorker

from deployments.service import POOL

LOST = "Mark a run without a heartbeat as crashed"
NEVER_BEGUN = "Mark a run that never began as crashed"
GPU = "gpu"
TRAININGS = 1
SILENCE = dt.timedelta(minutes=5)
"""Without a heartbeat, which comes every 30 seconds. A restart of Prefect, or a short sleep, ends no living run."""
BEGINNING = dt.timedelta(minutes=10)
"""What a run may take from a worker's first touch to its beginning."""
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
WAITS = ("Paused", "Suspended", "AwaitingRetry", "AwaitingConcurrencySlot", "Scheduled", "Late")
FOUND = {StateType.RUNNING: "tutelage.run.found-running", StateType.PENDING: "tutelage.run.found-pending"}
"""Events of runs that are there when the service starts: what was counted of them may be lost, and begins anew."""


def lost_runs(*, silence: dt.timedelta = SILENCE) -> list[AutomationCore]:
    """The automations that mark a run as crashed whose process is gone: while it ran, and before it began.

    Prefect itself would leave them Running or Pending forever, and a training in its queue's only place. A run that
    waits sends no heartbeats, and is not lost.
    """
    heartbeat = "prefect.flow-run.heartbeat"
    return [
        ended_without(
            LOST,
            after={heartbeat, FOUND[StateType.RUNNING]},
            expect=[heartbeat, *_events(ENDS + WAITS)],
            within=silence,
            message="No heartbeat: its process is gone, or can't send any.",
        ),
        ended_without(
            NEVER_BEGUN,
            after={"prefect.flow-run.Pending", FOUND[StateType.PENDING]},
            expect=_events(("Running", "Cancelling", *ENDS, *WAITS)),
            within=BEGINNING,
            message=f"It did not begin within {BEGINNING.total_seconds() / 60:.0f} minutes: its process is gone.",
        ),
    ]


def ended_without(
    name: str, *, after: set[str], expect: list[str], within: dt.timedelta, message: str
) -> AutomationCore:
    """An automation that marks a run as crashed where none of these events follows one of others in time."""
    return AutomationCore(
        name=name,
        description=f"{message} Worker and flow were killed together.",
        trigger=EventTrigger(
            after=after,
            expect=set(expect),
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def _events(states: tuple[str, ...]) -> list[str]:
    return [f"prefect.flow-run.{state}" for state in states]


def _ensure_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(
                name=POOL, type="process", description="Processes on this machine", base_job_template=template
            )
        )


def _ensure_queue(client: SyncPrefectClient) -> None:
    """Limit this machine to one training at a time.

    The limit is on a queue, not on a tag: a killed task keeps its tag's slot forever (Prefect 3.8 leases it for a
    hundred years), but a crashed run leaves its queue.
    """
    try:
        queue = client.read_work_queue_by_name(GPU, work_pool_name=POOL)
    except ObjectNotFound:
        client.create_work_queue(
            GPU, description="Trainings: one at a time", concurrency_limit=TRAININGS, work_pool_name=POOL
        )
    else:
        client.update_work_queue(queue.id, concurrency_limit=TRAININGS)


def ensure_automation(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create an automation, or update the one of its name where it differs: an update forgets what it has counted."""
    existing = client.read_automations_by_name(automation.name)
    if not existing:
        client.create_automation(automation)
    elif any(getattr(existing[0], name) != getattr(automation, name) for name in ("trigger", "actions", "description")):
        client.update_automation(existing[0].id, automation)


def watch_found(client: SyncPrefectClient) -> None:
    """Watch the runs that are there when the service starts, so that those are marked whose process is gone."""
    for state, event in FOUND.items():
        wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])))
        for run in client.read_flow_runs(flow_run_filter=wanted):
            emit_event(event, {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name})


def cancel_missed(client: SyncPrefectClient) -> None:
    """Of each deployment's scheduled runs that are due, leave the last one, and cancel the others by name.

    After a night without a worker they would all start at once, and only the last one has something to forecast, to
    verify or to train. Runs that a person or an event has started are left alone.
    """
    present = dt.datetime.now(dt.UTC)
    for deployment in client.read_deployments():
        waiting = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=present),
        )
        runs = client.read_flow_runs(flow_run_filter=waiting)
        due = {run.id: run.expected_start_time for run in runs if run.auto_scheduled and run.expected_start_time}
        last = max(due.values(), default=present)
        for run, time in due.items():
            if time < last:
                message = f"Missed: no worker ran when it was due, at {time:%Y-%m-%d %H:%M} UTC; "
                client.set_flow_run_state(run, Cancelled(message=f"{message}the run of {last:%Y-%m-%d %H:%M} is left."))


def main() -> None:
    """Create or update pool, queue and automations; watch the runs that are there; cancel missed ones."""
    with get_client(sync_client=True) as client:
        _ensure_pool(client)
        _ensure_queue(client)
        for automation in lost_runs():
            ensure_automation(client, automation)
        watch_found(client)
        cancel_missed(client)


if __name__ == "__main__":
    main()
