"""Verify stored forecasts against actual values; where they have degraded, emit an event that starts a retrain."""

from prefect import flow

from flows.naming import task_of_run
from runtime.clock import at_its_time
from runtime.paths import datasets_folder
from schemas.monitor import HealthManifest, MonitorParameters
from tasks.fetch import fetch
from tasks.forecast.champion import find_champion
from tasks.monitor.alert import publish_health
from tasks.monitor.verify import verify_forecasts
from tutelage.data.dataset import load_dataset_spec


@flow(name="monitor", flow_run_name=lambda: f"monitor {task_of_run(MonitorParameters)}")
def monitor(parameters: MonitorParameters) -> HealthManifest:
    """Verify the stored forecasts up to `as_of`; where they break the spec's limits, emit an event.

    The event `tutelage.forecast.degraded` contains the reason, and starts a retrain.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    champion = find_champion(parameters.task, spec)
    health = verify_forecasts(fetch(spec), spec, champion, parameters.as_of)
    publish_health(health)
    return health
