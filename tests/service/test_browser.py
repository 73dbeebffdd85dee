"""The service as its users meet it: the Prefect page and the MLflow page in a real browser."""

import json
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import UUID

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from selenium.webdriver.common.by import By

from tests.conftest import SCREENSHOTS
from tests.service.browser import Page, open_browser
from tests.service.conftest import SMALL, Up, until

pytestmark = [pytest.mark.service, pytest.mark.slow]

NAME = "household-24h"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser(SCREENSHOTS) as opened:
        yield opened


def open_form(page: Page, up: Up, deployment: str) -> None:
    """From the list of deployments to the form, as a person goes."""
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
    page.driver.get(f"{up.prefect}/deployments/deployment/{found.id}")
    page.press("Run")
    page.find("//*[normalize-space()='Custom run']").click()
    page.see("Horizon [h]")


def started_by_hand() -> set[str]:
    """The ids of the runs that no schedule made."""
    with get_client(sync_client=True) as client:
        return {str(run.id) for run in client.read_flow_runs() if not run.auto_scheduled}


def state_of(run: str) -> State:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run)).state


def fill_small(page: Page) -> None:
    """A slice that is learned in seconds, as SMALL asks for it by API."""
    page.fill("Lookback", SMALL["lookback_hours"])
    page.fill("History", SMALL["history_days"])
    page.fill("Test", SMALL["test_days"])
    page.fill("Seed", 7)
    teacher, student, distillation = (SMALL["recipe"][part] for part in ("teacher", "student", "distillation"))
    page.fill("Ensemble Size", teacher["ensemble_size"])
    page.fill("Noise Draws", teacher["noise_draws"])
    page.fill("Bins", distillation["bins"])
    for number, part in enumerate((teacher, student)):
        page.fill("Epochs", part["training"]["epochs"], number)


@pytest.fixture(scope="module")
def from_the_page(retrained: str, service: Up, page: Page) -> str:
    """The id of a retrain that was started from the form and seen to complete."""
    open_form(page, service, "retrain/household")
    fill_small(page)
    page.field("Dataset")
    page.picture("retrain-form")
    before = started_by_hand()
    page.press("Submit")
    [run] = until(lambda: started_by_hand() - before)
    # The page alone can't tell: its logs say "Completed" of each stage.
    until(lambda: state_of(run).is_final(), 600)
    page.driver.get(f"{service.prefect}/runs/flow-run/{run}")
    page.see("Finished in state Completed()")
    assert state_of(run).is_completed(), state_of(run).message
    page.picture("retrain-completed")
    return run


def test_form__a_retrain_is_filled_in_and_seen_to_complete(from_the_page: str) -> None:
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{NAME}'")
    [version] = [found for found in versions if found.tags["prefect.flow_run_id"] == from_the_page]
    params = mlflow.get_run(version.run_id).data.params
    asked = {"seed": "7", "lookback_hours": "24", "history_days": "24", "test_days": "14"}
    asked |= {
        "recipe.teacher.ensemble_size": "2",
        "recipe.student.training.epochs": "4",
        "recipe.teacher.training.epochs": "4",
    }
    assert {name: params[name] for name in asked} == asked


def test_run_page__shows_quality_progress_and_verdict(from_the_page: str, service: Up, page: Page) -> None:
    page.driver.get(f"{service.prefect}/runs/flow-run/{from_the_page}")
    page.find("//li[normalize-space()='Artifacts']").click()
    for key in (f"verdict-{NAME}", "quality-household", f"teacher-{NAME}"):
        page.see(key)
    page.picture("retrain-artifacts")


def test_form__bad_input_is_told_in_a_sentence(retrained: str, service: Up, page: Page) -> None:
    open_form(page, service, "retrain/household")
    page.fill("Horizon", 500)
    page.press("Submit")
    page.see("500 is greater than the maximum of 168")
    page.picture("retrain-form-refused")
    assert urlsplit(page.driver.current_url).path.endswith("/run")


def test_mlflow__compares_the_last_retrains(from_the_page: str, service: Up, page: Page) -> None:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(NAME)
    runs = client.search_runs([experiment.experiment_id], "tags.`tutelage.stage` = 'retrain'", max_results=3)
    chosen = json.dumps([run.info.run_id for run in runs if run.info.status == "FINISHED"][:2])
    page.driver.get(
        f"{service.mlflow}/#/compare-runs?runs={chosen}&experiments={json.dumps([experiment.experiment_id])}"
    )
    page.see("recipe.distillation.alpha")
    page.see("gain_over_twin.estimate")  # what the parallel coordinates show before anything is chosen
    page.close_assistant()
    page.picture("mlflow-compare")
    for name in ("gain_over_twin.estimate", "seasonal_naive_24h.crps", "student.crps", "teacher.crps", "twin.crps"):
        page.scroll_to(name)
    page.find("//*[normalize-space(text())='student.crps']")
    page.picture("mlflow-compare-metrics")
    for plot in ("coverage.png", "forecast.png", "losses.png", "reliability.png", "skill.png"):
        page.scroll_to(plot)
    page.find("//*[normalize-space(text())='skill.png']").click()
    until(lambda: len(page.driver.find_elements(By.XPATH, "//img")) >= 2)
    page.picture("mlflow-compare-plots")


def test_mlflow__a_version_shows_its_card(from_the_page: str, service: Up, page: Page) -> None:
    version = mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion").version
    page.driver.get(f"{service.mlflow}/#/models/{NAME}/versions/{version}")
    page.see("On the test part, which no choice was made on")
    page.see("champion")
    page.close_assistant()
    page.picture("mlflow-version")
