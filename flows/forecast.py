"""Forecast: the champion speaks about the hours to come, and what it said is kept."""

from prefect import flow

from flows.naming import task_of_run
from schemas.serving import ForecastManifest, ForecastParameters
from tasks.champion import find_champion
from tasks.clock import at_its_time
from tasks.home import datasets_folder
from tasks.issue import issue_forecast
from tasks.recent import read_recent
from tutelage.dataset import load_dataset_spec, source_files


@flow(name="forecast", flow_run_name=lambda: f"forecast {task_of_run(ForecastParameters)}")
def forecast(parameters: ForecastParameters) -> ForecastManifest:
    """Forecast the hours after `as_of` with the champion; running it twice for the same hour changes nothing.

    Needs neither torch nor a GPU: the champion is an ONNX graph behind MLflow's border.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    champion = find_champion(parameters.task)
    hours = read_recent(source_files(spec.source), spec, champion, parameters.as_of)
    return issue_forecast(hours, spec, champion)
