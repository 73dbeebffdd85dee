"""Forecast the coming hours with the champion and store the result."""

from prefect import flow

from flows.naming import task_of_run
from runtime.clock import at_its_time
from runtime.paths import datasets_folder
from schemas.forecast import ForecastManifest, ForecastParameters
from tasks.fetch import fetch
from tasks.forecast.champion import find_champion
from tasks.forecast.issue import issue_forecast
from tasks.forecast.recent import read_recent
from tutelage.data.dataset import load_dataset_spec


@flow(name="forecast", flow_run_name=lambda: f"forecast {task_of_run(ForecastParameters)}")
def forecast(parameters: ForecastParameters) -> ForecastManifest:
    """Forecast the hours after `as_of` with the champion; running it twice for the same hour changes nothing.

    It needs neither torch nor a GPU: the champion is an ONNX graph in an MLflow model.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    champion = find_champion(parameters.task, spec)
    hours = read_recent(fetch(spec), spec, champion, parameters.as_of)
    return issue_forecast(hours, spec, champion)
