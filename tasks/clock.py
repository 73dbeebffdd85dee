"""What time it is for a flow run: its own `as_of`, else the replayed time, else the end of the data."""

from pathlib import Path
from typing import TypeVar

from prefect import get_run_logger
from prefect.runtime import deployment, flow_run

from schemas.parameters import DatedParameters
from tasks.home import home
from tutelage.clock import read_clock

Dated = TypeVar("Dated", bound=DatedParameters)


def clock_path(dataset: str) -> Path:
    """Where the clock of a dataset's replay stands, if it has one."""
    return home() / "clock" / f"{dataset}.json"


def at_its_time(parameters: Dated) -> Dated:
    """The parameters with the replayed hour as `as_of`, where a deployment's run has none and its dataset is replayed.

    It is the hour at which the run was due, not the one at which it got its turn.
    """
    clock = read_clock(clock_path(parameters.dataset))
    if parameters.as_of is not None or clock is None or not deployment.id:
        return parameters
    as_of = clock.hour_at(flow_run.scheduled_start_time)
    get_run_logger().info("%s is replayed: it is %s UTC there", parameters.dataset, f"{as_of:%Y-%m-%d %H:%M}")
    return parameters.model_copy(update={"as_of": as_of})
