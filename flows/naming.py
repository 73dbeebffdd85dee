"""What a flow run is called: by its task, which stands in its parameters."""

from prefect.runtime import flow_run

from schemas.parameters import TaskParameters


def task_of_run(kind: type[TaskParameters]) -> str:
    """The task of the present run; a run that was started on the page or by API has its parameters as plain values."""
    return kind.model_validate(flow_run.parameters["parameters"]).task
