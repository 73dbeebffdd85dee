"""An ablation of a household's forecaster, cut off and continued; and on the terminal."""

import json
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

import flows.ablation
import flows.pieces
from flows.ablation import ablation
from runtime.paths import datasets_folder
from schemas.ablation import AblationManifest, AblationParameters
from tests.flows.power import cut_at
from tests.flows.test_retrain import SMALL
from tests.household import write_slice

pytestmark = pytest.mark.usefixtures("prefect_server")
VARIANTS = ["whole recipe", "future", "minutes", "auxiliary", "placebo", "12 days"]


def asked(dataset: str) -> AblationParameters:
    return AblationParameters(
        dataset=dataset,
        horizon_hours=1,
        lookback_hours=24,
        history_days=24,
        test_days=14,
        history_shares=(0.1, 0.5),
        recipe=SMALL,
        device="cpu",
    )


def runs(stage: str) -> list[Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("ablation-slice-1h-ablation")
    found = client.search_runs([experiment.experiment_id], f"tags.`tutelage.stage` = '{stage}'")
    return sorted(found, key=lambda run: run.info.start_time)


@pytest.fixture(scope="module")
def cut_off(prefect_server: None) -> str:
    """A dataset whose ablation was cut off at its third retrain."""
    name = write_slice(datasets_folder(), name="ablation-slice", days=40)
    with cut_at(flows.pieces, "train_and_evaluate", call=3):
        ablation(asked(name))
    return name


@pytest.fixture(scope="module")
def done(cut_off: str) -> AblationManifest:
    before = {run.info.run_id: run.info.end_time for run in runs("retrain") if run.info.status == "FINISHED"}
    assert len(before) == 2
    manifest = ablation(asked(cut_off))
    after = {run.info.run_id: run.info.end_time for run in runs("retrain")}
    assert before.items() <= after.items(), "what was finished was not done again"
    return manifest


def test_ablation__is_one_run_with_a_retrain_of_each_variant(done: AblationManifest) -> None:
    [whole] = runs("ablation")
    assert (whole.info.run_id, whole.info.status) == (done.result.mlflow_run_id, "FINISHED")
    tried = runs("retrain")
    names = [run.info.run_name.removeprefix("ablation-slice-1h seed 0 ") for run in tried]
    assert (names, {run.info.status for run in tried}) == (VARIANTS, {"FINISHED"})
    assert {run.data.tags["mlflow.parentRunId"] for run in tried} == {done.result.mlflow_run_id}
    params = {name: run.data.params for name, run in zip(names, tried, strict=True)}
    assert params["future"]["recipe.teacher.views.future_sigma"] == "None"
    assert params["minutes"]["recipe.teacher.views.minutes_hours"] == "0"
    assert params["12 days"]["history_days"] == "12"


def test_ablation__compares_what_the_retrains_have_logged(done: AblationManifest) -> None:
    result, tried = done.result, dict(zip(VARIANTS, runs("retrain"), strict=True))
    crps = {name: run.data.metrics["student.crps"] for name, run in tried.items()}
    assert result.student_crps == pytest.approx(crps["whole recipe"], rel=1e-6)
    assert result.unprivileged_crps == pytest.approx(tried["whole recipe"].data.metrics["unprivileged.crps"], rel=1e-6)
    assert [row.name for row in result.without] == VARIANTS[1:5]
    for row in result.without:
        assert row.student_crps == pytest.approx(crps[row.name], rel=1e-6)
        assert row.student_gain.estimate == pytest.approx(1 - crps["whole recipe"] / crps[row.name], abs=1e-6)
        assert row.student_gain.windows == 14 * 24
    assert [row.days for row in result.history] == [12, 24], "two days are too few to retrain on"
    twin = tried["whole recipe"].data.metrics["twin.crps"]
    assert result.history[0].student_gain.estimate == pytest.approx(1 - crps["12 days"] / twin, abs=1e-6)
    assert result.kept_values_a_day == {"future": 0, "minutes": 1440, "auxiliary": 6 * 24, "placebo": 0}


def test_ablation__page_and_result_are_in_mlflow(done: AblationManifest, tmp_path: Path) -> None:
    run_id = done.result.mlflow_run_id
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="ablation", dst_path=str(tmp_path)))
    assert {file.name for file in folder.iterdir()} == {"ablation.json", "ablation.html", "ablation.png"}
    assert json.loads((folder / "ablation.json").read_text())["sentence"] == done.result.sentence
    page = (folder / "ablation.html").read_text()
    assert "1440 readings a day and series of global_active_power_kw, in place of 24" in page
    assert page.count("<tr>") == 1 + 4 + 1 + 2
    logged = mlflow.get_run(run_id).data.metrics
    assert logged["gain_from_future.estimate"] == done.result.without[0].student_gain.estimate


def test_ablation__registers_nothing(done: AblationManifest) -> None:
    assert mlflow.MlflowClient().search_model_versions("name = 'ablation-slice-1h'") == []


def test_main__without_teachers_of_its_own_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = '{"teacher": {"registered_model": "other/1"}}'
    assert flows.ablation.main(["dataset=ablation-slice", "horizon_hours=1", f"recipe={recipe}"]) == 1
    shown = capsys.readouterr().err.strip().splitlines()
    assert len(shown) == 1
