"""Replayed datasets: their clocks, and schedules on these clocks beside those on ours: `python -m deployments.replay`.

A schedule of ours is no use to data whose day lasts a minute: what runs each hour, day and week has a second schedule,
`replay`, that keeps the data's pace.
"""

import datetime as dt
import sys

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import RRuleSchedule

from tasks.clock import clock_path
from tasks.home import datasets_folder
from tutelage.clock import read_clock, started, write_clock
from tutelage.dataset import Replay, load_dataset_spec
from tutelage.errors import TutelageError

SLUG = "replay"
EVERY_HOURS = {"retrain": 7 * 24, "forecast": 24, "monitor": 3 * 24}
"""Hours of the data from one run to the next, by flow."""
FIRST_MINUTES = {"forecast": 5, "monitor": 8}
"""Minutes from the very first start to the first run: a forecast needs a champion, a monitor needs forecasts."""


def replay_schedule(replay: Replay, flow: str, now: dt.datetime, *, new: bool) -> RRuleSchedule:
    """When a flow runs on a replay's clock: every so many whole minutes of ours, at least one.

    The first time is after as many minutes; where the clock is new, some flows have to wait longer.
    """
    minutes = max(1, round(EVERY_HOURS[flow] / replay.hours_per_minute))
    first = now + dt.timedelta(minutes=FIRST_MINUTES.get(flow, minutes) if new else minutes)
    return RRuleSchedule(rrule=f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=MINUTELY;INTERVAL={minutes}")


def _replays() -> dict[str, Replay]:
    specs = [load_dataset_spec(path) for path in sorted(datasets_folder().glob("*.yaml"))]
    return {spec.name: spec.replay for spec in specs if spec.replay is not None}


def start_clock(dataset: str, replay: Replay, now: dt.datetime) -> bool:
    """Start a dataset's clock, or let it go on; say whether it is new."""
    before = read_clock(clock_path(dataset))
    write_clock(started(replay, now, before), clock_path(dataset))
    return before is None


def _unschedule(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    for schedule in deployment.schedules:
        if schedule.slug == SLUG:
            client.delete_deployment_schedule(deployment.id, schedule.id)


def main() -> None:
    """Start the clocks, or let them go on, and put the schedules on them; what isn't replayed any more loses both."""
    now = dt.datetime.now(dt.UTC)
    replays = _replays()
    new = {dataset: start_clock(dataset, replay, now) for dataset, replay in replays.items()}
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            flow = client.read_flow(deployment.flow_id).name
            dataset = (deployment.parameters.get("parameters") or {}).get("dataset")
            _unschedule(client, deployment)
            if flow in EVERY_HOURS and dataset in replays:
                schedule = replay_schedule(replays[dataset], flow, now, new=new[dataset])
                wanted = DeploymentScheduleCreate(schedule=schedule, active=True, slug=SLUG)
                client.create_deployment_schedules(deployment.id, [wanted])
                if flow == "retrain" and new[dataset]:
                    client.create_flow_run_from_deployment(deployment.id)  # all else waits for its champion
    for path in clock_path("any").parent.glob("*.json"):
        if path.stem not in replays:
            path.unlink()


if __name__ == "__main__":
    try:
        main()
    except TutelageError as error:
        sys.exit(str(error))
