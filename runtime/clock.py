"""The time of a flow run: its `as_of`, else the replayed time, else the end of the data."""

from pathlib import Path
from typing import TypeVar

from prefect import get_run_logger
from prefect.runtime import deployment, flow_run

from runtime.paths import home
from schemas.parameters import DatedParameters
from tutelage.data.replay import read_clock

Dated = TypeVar("Dated", bound=DatedParameters)


def clock_path(dataset: str) -> Path:
    """The file with the clock of a dataset's replay; absent where the dataset is not replayed."""
    return home() / "clock" / f"{dataset}.json"


def at_its_time(parameters: Dated) -> Dated:
    """The parameters with the replayed hour as `as_of`, for runs of deployments of replayed datasets without `as_of`.

    It is the hour that the run was scheduled for, not the hour that it started in.
    """
    clock = read_clock(clock_path(parameters.dataset))
    if parameters.as_of is not None or clock is None or not deployment.id:
        return parameters
    as_of = clock.hour_at(flow_run.scheduled_start_time)
    get_run_logger().info("%s is replayed: its time is %s UTC", parameters.dataset, f"{as_of:%Y-%m-%d %H:%M}")
    return parameters.model_copy(update={"as_of": as_of})
