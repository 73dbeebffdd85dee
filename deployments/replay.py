"""Replayed datasets: start their clocks and schedules with `python -m deployments.replay`.

A schedule in real time is of no use for data whose day lasts a minute: the flows that run each hour, day and week get a
second schedule, `replay`, in the data's time.
"""

import datetime as dt
import sys

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import RRuleSchedule

from runtime.clock import clock_path
from runtime.paths import datasets_folder
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.replay import Replay, read_clock, started, write_clock
from tutelage.errors import TutelageError

SLUG = "replay"
EVERY_HOURS = {"retrain": 7 * 24, "forecast": 24, "monitor": 3 * 24}
"""Hours of data from one run to the next, by flow."""
FIRST_MINUTES = {"forecast": 5, "monitor": 8}
"""Minutes from the first start to the first run: a forecast needs a champion, the monitor needs forecasts."""


def replay_schedule(replay: Replay, flow: str, wall: dt.datetime, *, new: bool) -> RRuleSchedule:
    """The schedule of a flow on a replay's clock: an interval of whole real minutes, at least one.

    The first run is one interval after `wall`, the real time; with a new clock, after FIRST_MINUTES.
    """
    minutes = max(1, round(EVERY_HOURS[flow] / replay.hours_per_minute))
    first = wall + dt.timedelta(minutes=FIRST_MINUTES.get(flow, minutes) if new else minutes)
    return RRuleSchedule(rrule=f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=MINUTELY;INTERVAL={minutes}")


def _replays() -> dict[str, Replay]:
    specs = [load_dataset_spec(path) for path in sorted(datasets_folder().glob("*.yaml"))]
    return {spec.name: spec.replay for spec in specs if spec.replay is not None}


def start_clock(dataset: str, replay: Replay) -> bool:
    """Start or continue a dataset's clock now; return whether it is new."""
    before = read_clock(clock_path(dataset))
    # Now is after the reading: a service that runs moves the clock on, and an earlier now would count that time twice.
    write_clock(started(replay, dt.datetime.now(dt.UTC), before), clock_path(dataset))
    return before is None


def _unschedule(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    for schedule in deployment.schedules:
        if schedule.slug == SLUG:
            client.delete_deployment_schedule(deployment.id, schedule.id)


def main() -> None:
    """Start or continue the clocks and set the schedules; datasets that are no longer replayed lose both."""
    replays = _replays()
    new = {dataset: start_clock(dataset, replay) for dataset, replay in replays.items()}
    wall = dt.datetime.now(dt.UTC)
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            flow = client.read_flow(deployment.flow_id).name
            dataset = (deployment.parameters.get("parameters") or {}).get("dataset")
            _unschedule(client, deployment)
            if flow in EVERY_HOURS and dataset in replays:
                schedule = replay_schedule(replays[dataset], flow, wall, new=new[dataset])
                wanted = DeploymentScheduleCreate(schedule=schedule, active=True, slug=SLUG)
                client.create_deployment_schedules(deployment.id, [wanted])
                if flow == "retrain" and new[dataset]:
                    client.create_flow_run_from_deployment(deployment.id)  # the other flows need its champion
    for path in clock_path("any").parent.glob("*.json"):
        if path.stem not in replays:
            path.unlink()


if __name__ == "__main__":
    try:
        main()
    except TutelageError as error:
        sys.exit(str(error))
