"""The name of a flow run, from the forecasting task in its parameters."""

from prefect.runtime import flow_run

from schemas.parameters import TaskParameters


def task_of_run(kind: type[TaskParameters]) -> str:
    """The task of the current run, whose parameters are plain values if it was started on the page or by API."""
    return kind.model_validate(flow_run.parameters["parameters"]).task
