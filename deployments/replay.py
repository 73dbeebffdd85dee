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
from tutelage.data.grid import HOUR
from tutelage.data.replay import Clock, Replay, read_clock, started, write_clock
from tutelage.errors import TutelageError

SLUG = "replay"
EVERY_HOURS = {"retrain": 7 * 24, "forecast": 24, "monitor": 3 * 24}
"""Hours of data from one run to the next, by flow."""
FIRST_MINUTES = {"forecast": 5, "monitor": 8}
"""Minutes from the first start to the first run: a forecast needs a champion, the monitor needs forecasts."""


def replay_schedule(clock: Clock, flow: str, *, new: bool) -> RRuleSchedule | None:
    """The schedule of a flow on a replay's clock: an interval of whole real minutes, at least one, until its end.

    The first run is one interval after the clock's real time; with a new clock, after FIRST_MINUTES. None: the replay
    ends before.
    """
    minutes = max(1, round(EVERY_HOURS[flow] / clock.hours_per_minute))
    first = clock.wall + dt.timedelta(minutes=FIRST_MINUTES.get(flow, minutes) if new else minutes)
    # With the first run after it: that one sees all the data.
    end = clock.wall + dt.timedelta(minutes=(clock.end - clock.data) / HOUR / clock.hours_per_minute + minutes)
    if first > end:
        return None
    rule = f"FREQ=MINUTELY;UNTIL={end:%Y%m%dT%H%M%SZ};INTERVAL={minutes}"
    return RRuleSchedule(rrule=f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:{rule}")


def _replays() -> dict[str, Replay]:
    specs = [load_dataset_spec(path) for path in sorted(datasets_folder().glob("*.yaml"))]
    return {spec.name: spec.replay for spec in specs if spec.replay is not None}


def start_clock(dataset: str, replay: Replay) -> tuple[Clock, bool]:
    """Start or continue a dataset's clock now; return it, and whether it is new."""
    before = read_clock(clock_path(dataset))
    # Now is after the reading: a service that runs moves the clock on, and an earlier now would count that time twice.
    clock = started(replay, dt.datetime.now(dt.UTC), before)
    write_clock(clock, clock_path(dataset))
    return clock, before is None


def _unschedule(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    for schedule in deployment.schedules:
        if schedule.slug == SLUG:
            client.delete_deployment_schedule(deployment.id, schedule.id)


def main() -> None:
    """Start or continue the clocks and set the schedules; datasets that are no longer replayed lose both."""
    replays = _replays()
    clocks = {dataset: start_clock(dataset, replay) for dataset, replay in replays.items()}
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            flow = client.read_flow(deployment.flow_id).name
            dataset = (deployment.parameters.get("parameters") or {}).get("dataset")
            _unschedule(client, deployment)
            if flow in EVERY_HOURS and dataset in replays:
                clock, new = clocks[dataset]
                if (schedule := replay_schedule(clock, flow, new=new)) is not None:
                    wanted = DeploymentScheduleCreate(schedule=schedule, active=True, slug=SLUG)
                    client.create_deployment_schedules(deployment.id, [wanted])
                if flow == "retrain" and new:
                    client.create_flow_run_from_deployment(deployment.id)  # the other flows need its champion
    for path in clock_path("any").parent.glob("*.json"):
        if path.stem not in replays:
            path.unlink()


if __name__ == "__main__":
    try:
        main()
    except TutelageError as error:
        sys.exit(str(error))
