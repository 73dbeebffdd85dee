"""Monitor: stored forecasts meet what then happened; where they have degraded, an event asks for a retrain."""

from prefect import flow

from flows.naming import task_of_run
from schemas.serving import HealthManifest, MonitorParameters
from tasks.alarm import publish_health
from tasks.champion import find_champion
from tasks.clock import at_its_time
from tasks.home import datasets_folder
from tasks.judge import judge_forecasts
from tutelage.dataset import load_dataset_spec, source_files


@flow(name="monitor", flow_run_name=lambda: f"monitor {task_of_run(MonitorParameters)}")
def monitor(parameters: MonitorParameters) -> HealthManifest:
    """Judge the forecasts that have come true by `as_of`, and ask for a retrain where the spec's limits break.

    It asks by the event `tutelage.forecast.degraded`, which holds the reason.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    champion = find_champion(parameters.task)
    health = judge_forecasts(source_files(spec.source), spec, champion, parameters.as_of)
    publish_health(health)
    return health
