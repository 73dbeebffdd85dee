"""Set up the Prefect server before deploying: work pool, queue `gpu`, and the automation that ends lost runs."""

import datetime as dt

from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from deployments.service import POOL

LOST = "Mark a run without a heartbeat as crashed"
GPU = "gpu"
TRAININGS = 1
SILENCE = dt.timedelta(seconds=90)
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
WAITS = ("Paused", "Suspended", "AwaitingRetry", "Scheduled")


def lost_runs() -> AutomationCore:
    """The automation that marks a run as crashed when its heartbeats stop before it ends: its process is gone.

    Prefect itself would leave such a run Running forever. A run that waits sends no heartbeats, and is not lost.
    """
    heartbeat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=LOST,
        description=f"No heartbeat for {SILENCE.total_seconds():.0f} s: worker and flow were killed together.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{state}" for state in ENDS + WAITS)},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: its process is gone.")],
    )


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


def _ensure_automation(client: SyncPrefectClient) -> None:
    existing = client.read_automations_by_name(LOST)
    if existing:
        client.update_automation(existing[0].id, lost_runs())
    else:
        client.create_automation(lost_runs())


def main() -> None:
    """Create or update pool, queue and automation."""
    with get_client(sync_client=True) as client:
        _ensure_pool(client)
        _ensure_queue(client)
        _ensure_automation(client)


if __name__ == "__main__":
    main()
