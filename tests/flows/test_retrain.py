import datetime as dt
import json
import re
from pathlib import Path

import mlflow
import polars as pl
import pytest
import yaml
from mlflow.entities.model_registry import ModelVersion
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from flows.retrain import retrain
from schemas.parameters import RetrainParameters
from schemas.verdict import Verdict
from tasks.home import datasets_folder, home
from tests.household import write_slice
from tutelage.errors import DataError, QualityError
from tutelage.export import load_student
from tutelage.recipe import Budget, Recipe

pytestmark = pytest.mark.usefixtures("prefect_server")

SMALL = Recipe(
    teachers=2,
    teacher_width=16,
    student_width=16,
    bins=12,
    draws=2,
    teacher_budget=Budget(epochs=6, patience=6),
    student_budget=Budget(epochs=6, patience=6),
)


def small(dataset: str, **changes: object) -> RetrainParameters:
    values = {
        "horizon_hours": 1,
        "lookback_hours": 24,
        "history_days": 24,
        "test_days": 14,
        "recipe": SMALL,
        "device": "cpu",
        "refit": False,
    }
    return RetrainParameters(dataset=dataset, **(values | changes))


def task_states(run_id: str) -> dict[str, str]:
    """The final state's name of each task of a flow run, by the task's first word."""
    with get_client(sync_client=True) as prefect:
        found = prefect.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    return {re.sub(r"-[0-9a-f]{3}$", "", run.name): run.state_name for run in found}


def flow_run_of(verdict: Verdict) -> str:
    return mlflow.MlflowClient().get_run(verdict.mlflow_run_id).data.tags["prefect.flow_run_id"]


@pytest.fixture(scope="module")
def first(household_slice: str, prefect_server: None) -> Verdict:
    return retrain(small(household_slice))


@pytest.fixture(scope="module")
def second(household_slice: str, first: Verdict) -> Verdict:
    return retrain(small(household_slice))


def test_retrain__writes_a_whole_verdict(first: Verdict) -> None:
    written = json.loads((home() / "reports" / "latest" / first.task / "verdict.json").read_text())
    assert written["task"] == "household-slice-1h"
    told = {"student", "no_privilege", "twin", "teacher", "chosen", "seasonal_naive_24h", "seasonal_naive_168h"}
    assert told <= set(written["metrics"])
    assert all(set(m) == {"crps", "mae", "rmse", "coverage_80"} for m in written["metrics"].values())
    assert set(written["gain_vs_twin_crps"]) == {"estimate", "low", "high", "p", "windows"}
    assert written["gain_vs_twin_crps"]["low"] <= written["gain_vs_twin_crps"]["high"]
    student, control, twin = (written["metrics"][name]["crps"] for name in ("student", "no_privilege", "twin"))
    assert written["gain_vs_twin_crps"]["estimate"] == pytest.approx(1 - student / twin)
    assert written["gain_vs_no_privilege_crps"]["estimate"] == pytest.approx(1 - student / control)
    assert len({student, control, twin}) == 3
    by_pair = written["gain_by_pair_crps"]
    assert (len(by_pair), len(set(by_pair))) == (5, 5)
    assert min(by_pair) < written["gain_vs_twin_crps"]["estimate"] < max(by_pair)
    assert "5 students have" in first.sentence
    assert "against students of teachers without privilege" in first.sentence
    assert written["leak_guard"]["passed"] is True
    assert written["leak_guard"]["checked"] > 100
    registered = written["registered"]
    assert (registered["name"], registered["version"], registered["alias"]) == (first.task, "1", "champion")
    assert registered["model"] in ("student", "twin")
    assert written["n_train_windows"] > 300
    page = (home() / "reports" / "latest" / first.task / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert first.sentence.split(";")[0] in page.replace("&#39;", "'")


def test_retrain__one_run_with_a_child_for_each_that_learns(first: Verdict) -> None:
    client = mlflow.MlflowClient()
    parent = client.get_run(first.mlflow_run_id)
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    stages = sorted(child.data.tags["tutelage.stage"] for child in children)
    assert stages == ["no_privilege", "student", "teacher", "twin"]
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert parent.data.params["recipe.views.future_sigma"] == "2.0"
    assert parent.data.metrics["student.crps"] == pytest.approx(first.metrics["student"]["crps"])
    assert parent.data.metrics["quality.repeated.rows"] == first.quality["filled_rows"]
    shown = {"forecast.png", "losses.png", "reliability.png", "skill.png", "report.html", "verdict.json"}
    assert shown <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    for child in children:
        steps = [metric.step for metric in client.get_metric_history(child.info.run_id, "validation")]
        assert steps == list(range(1, 7))


def test_retrain__registers_with_lineage(first: Verdict) -> None:
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias(first.task, "champion")
    assert version.run_id == first.mlflow_run_id
    assert {"git_commit", "spec_digest", "prefect.flow_run_id"} <= set(version.tags)
    assert "On the test part" in version.description
    [lineage] = client.get_run(first.mlflow_run_id).inputs.dataset_inputs
    assert lineage.dataset.name == "household-slice"
    model = mlflow.pyfunc.load_model(f"models:/{first.task}@champion")
    assert "global_active_power_kw" in str(model.metadata.signature.inputs)
    assert "q50" in model.metadata.signature.outputs.input_names()
    assert len(model.predict(model.input_example)) == 1


def test_retrain__a_rolled_student(household_slice: str) -> None:
    verdict = retrain(
        small(household_slice, horizon_hours=3, refit=True, recipe=SMALL.model_copy(update={"rolled": True}))
    )
    folder = home() / "runs" / verdict.mlflow_run_id / "students" / "student"
    shape = json.loads((folder / "network.json").read_text())["shape"]
    assert (shape["rolled"], shape["horizon"], len(shape["centres"])) == (True, 3, shape["bins"])
    assert {"student", "twin"} <= set(verdict.metrics)
    assert verdict.leak_guard["passed"] is True
    assert verdict.refit is not None
    model = mlflow.pyfunc.load_model(f"models:/{verdict.task}/{verdict.registered.version}")
    assert len(model.predict(model.input_example)) == 3


def test_retrain__second_run_takes_data_from_cache(first: Verdict, second: Verdict) -> None:
    states = task_states(flow_run_of(second))
    for stage in ("ingest household-slice", "validate household-slice", "features household-slice-1h"):
        assert states[stage] == "Cached"
    assert states["teacher household-slice-1h"] == "Completed"
    assert second.mlflow_run_id != first.mlflow_run_id


def test_retrain__same_seed_gives_the_same_figures(first: Verdict, second: Verdict) -> None:
    assert {k: second.metrics[k] for k in first.metrics} == first.metrics
    assert second.gain_vs_twin_crps == first.gain_vs_twin_crps


def test_retrain__an_equal_challenger_does_not_dethrone_the_champion(second: Verdict) -> None:
    client = mlflow.MlflowClient()
    assert client.get_model_version_by_alias(second.task, "champion").version == 1
    assert client.get_model_version_by_alias(second.task, "challenger").version == 2
    assert len(client.search_model_versions(f"name = '{second.task}'")) == 2
    assert second.registered.alias == "challenger"
    assert second.gain_vs_champion_crps is not None
    assert second.gain_vs_champion_crps["estimate"] == pytest.approx(0, abs=1e-9)
    assert "not surely better" in client.get_model_version(second.task, "2").tags["promotion"]


def test_retrain__of_one_pair_the_chosen_one_is_its_better_half(household_slice: str, first: Verdict) -> None:
    one = retrain(small(household_slice, pairs=1, control=False, promotion="never"))
    assert one.gain_vs_no_privilege_crps is None
    assert "no_privilege" not in one.metrics
    assert "without privilege" not in one.sentence
    assert one.gain_by_pair_crps == pytest.approx([one.gain_vs_twin_crps["estimate"]])
    assert "the student has" in one.sentence
    # As an ONNX file here, as the network there.
    assert one.metrics["chosen"] == pytest.approx(one.metrics[one.registered.model], rel=1e-4, abs=1e-3)
    if one.registered.model == first.registered.model:  # trained beside others it ends as it does alone
        assert one.metrics["chosen"]["crps"] == pytest.approx(first.metrics["chosen"]["crps"], rel=1e-3)


def test_retrain__lost_files_of_a_cached_stage_are_made_again(household_slice: str, second: Verdict) -> None:
    for file in (home() / "data" / "validated").iterdir():
        file.unlink()
    again = retrain(small(household_slice))
    states = task_states(flow_run_of(again))
    assert (states["ingest household-slice"], states["validate household-slice"]) == ("Cached", "Completed")
    assert again.metrics["twin"] == second.metrics["twin"]


def test_retrain__reads_nothing_after_as_of(household_slice: str, second: Verdict) -> None:
    as_of = dt.datetime(2010, 7, 24, tzinfo=dt.UTC)
    verdict = retrain(small(household_slice, as_of=as_of, history_days=18, horizon_hours=6, lookback_hours=12))
    assert verdict.parts_utc["test"][1] == as_of
    validated = [pl.read_parquet(file)["time_utc"].max() for file in (home() / "data" / "readings").iterdir()]
    assert dt.datetime(2010, 7, 23, 23, 59, tzinfo=dt.UTC) in validated


@pytest.fixture(scope="module")
def refit(prefect_server: None) -> list[Verdict]:
    """Two retrains with refit: one early, one at the end of the data."""
    name = write_slice(datasets_folder(), name="refit-slice", days=40)
    early = {"history_days": 12, "test_days": 7, "as_of": dt.datetime(2010, 7, 15, tzinfo=dt.UTC)}
    late = {"history_days": 18, "test_days": 18}
    return [retrain(small(name, refit=True, seed=seed, **times)) for seed, times in enumerate([early, late])]


def version_of(verdict: Verdict) -> ModelVersion:
    return mlflow.MlflowClient().get_model_version(verdict.registered.name, verdict.registered.version)


def test_retrain__refit_registers_a_student_of_all_the_history(refit: list[Verdict]) -> None:
    first = refit[0]
    end = dt.datetime(2010, 7, 15, tzinfo=dt.UTC)
    assert first.parts_utc["test"][1] == end
    assert first.refit is not None
    assert first.refit.until_utc == end
    assert first.refit.windows > first.n_train_windows + first.n_validation_windows + first.n_test_windows
    assert first.refit.epochs["student"] <= SMALL.student_budget.epochs
    assert "refit on all until 2010-07-15 00:00 UTC and registered" in first.sentence
    path = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{first.registered.name}/1"))
    registered, judged = load_student(path / "artifacts" / "export"), load_student(path / "judged")
    assert (registered.trained_until, judged.trained_until) == (end, first.parts_utc["validation"][1])
    version = version_of(first)
    assert version.tags["refit"] == "on all until 2010-07-15 00:00 UTC"
    assert "It has no held-out figures of its own" in version.description


def test_retrain__a_refit_champion_is_met_after_all_that_it_has_seen(refit: list[Verdict]) -> None:
    gain = refit[1].gain_vs_champion_crps
    assert gain is not None
    assert 14 * 24 <= gain["windows"] < refit[1].n_test_windows
    assert "before a refit" not in version_of(refit[1]).tags["promotion"]


def test_retrain__with_less_than_two_weeks_the_pair_before_the_refit_decides(refit: list[Verdict]) -> None:
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(refit[1].task, "champion", refit[1].registered.version)
    again = retrain(small("refit-slice", refit=True, seed=1, history_days=18, test_days=18))
    assert again.gain_vs_champion_crps is not None
    assert again.gain_vs_champion_crps["windows"] == again.n_test_windows
    assert again.gain_vs_champion_crps["estimate"] == pytest.approx(0, abs=1e-9)
    assert "both as they were before a refit" in version_of(again).tags["promotion"]


def test_retrain__too_bad_data_stop_it_with_a_table_and_no_retry(prefect_server: None) -> None:
    name = write_slice(datasets_folder(), name="bad-slice", days=40)
    spec = datasets_folder() / f"{name}.yaml"
    content = yaml.safe_load(spec.read_text())
    content["columns"][2]["maximum"] = 241
    spec.write_text(yaml.safe_dump(content))
    with pytest.raises(QualityError, match=r"out_of_range +voltage_v +\d+ rows +\d+\.\d+% > 0\.000%"):
        retrain(small(name))
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("bad-slice-1h")
    [run] = client.search_runs([experiment.experiment_id], "tags.`tutelage.stage` = 'retrain'")
    assert run.info.status == "FAILED"
    with get_client(sync_client=True) as prefect:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run.data.tags["prefect.flow_run_id"]]))
        found = {r.name: r for r in prefect.read_task_runs(flow_run_filter=wanted)}
        artifacts = prefect.read_artifacts()
    assert found["validate bad-slice"].run_count == 1
    assert any(artifact.key == "quality-bad-slice" for artifact in artifacts)


def test_retrain__too_short_a_history_is_told_in_a_sentence(household_slice: str, second: Verdict) -> None:
    with pytest.raises(DataError, match="the history is too short: 400 days of history and 14 of test"):
        retrain(small(household_slice, history_days=400))
