import datetime as dt
import json
import re
from dataclasses import asdict
from pathlib import Path

import mlflow
import polars as pl
import pytest
import yaml
from mlflow.entities.model_registry import ModelVersion
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from flows.retrain import retrain
from flows.rollback import rollback
from runtime.paths import datasets_folder, home
from runtime.registry import exported_in
from schemas.promotion import RollbackParameters
from schemas.retrain import RetrainParameters
from schemas.verdict import Verdict
from tests.household import write_slice
from tests.tutelage.builders import recipe_of
from tutelage.errors import DataError, QualityError
from tutelage.judge.verdict import conclude_floor
from tutelage.model.inference import load_student
from tutelage.model.kinds import Budget

pytestmark = pytest.mark.usefixtures("prefect_server")

SMALL = recipe_of(
    base="none",  # of so little data ridge would stand alone
    ensemble_size=2,
    teacher_width=16,
    student_width=16,
    bins=12,
    noise_draws=2,
    teacher_training=Budget(epochs=6, patience=6),
    student_training=Budget(epochs=6, patience=6),
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
def first(household_slice: str, prefect_server: None, begun: float) -> Verdict:
    return retrain(small(household_slice))


@pytest.fixture(scope="module")
def second(household_slice: str, first: Verdict) -> Verdict:
    """The same retrain again, after a person has made the first version the champion."""
    rollback(RollbackParameters(name=first.task, version=1, by="ada", why="to be challenged"))
    return retrain(small(household_slice))


def test_retrain__writes_a_whole_verdict(first: Verdict) -> None:
    written = json.loads((home() / "reports" / "latest" / first.task / "verdict.json").read_text())
    assert written["task"] == "household-slice-1h"
    contenders = {"student", "unprivileged", "twin", "teacher", "chosen", "seasonal_naive_24h", "seasonal_naive_168h"}
    evaluation = written["evaluation"]
    scores = evaluation["scores"]
    assert contenders <= set(scores)
    assert all(set(s) == {"crps", "mae", "rmse", "coverage_80"} for s in scores.values())
    assert set(evaluation["gain_over_twin"]) == {"estimate", "low", "high", "p", "windows"}
    assert evaluation["gain_over_twin"]["low"] <= evaluation["gain_over_twin"]["high"]
    student, control, twin = (scores[name]["crps"] for name in ("student", "unprivileged", "twin"))
    assert evaluation["gain_over_twin"]["estimate"] == pytest.approx(1 - student / twin)
    assert evaluation["gain_over_unprivileged"]["estimate"] == pytest.approx(1 - student / control)
    assert len({student, control, twin}) == 3
    by_replicate = evaluation["gain_by_replicate"]
    assert (len(by_replicate), len(set(by_replicate))) == (5, 5)
    assert min(by_replicate) < evaluation["gain_over_twin"]["estimate"] < max(by_replicate)
    assert "(mean of 5 replicates, each" in first.sentence
    assert "than that of students of unprivileged teachers" in first.sentence
    assert ", on the 14 days from 2010-07-16" in first.sentence
    assert first.sentence.startswith(f"household-slice-1h: {first.conclusion}. The chosen ")
    assert evaluation["leak_check"]["passed"] is True
    assert evaluation["leak_check"]["checked"] > 100
    registered = written["registered"]
    assert (registered["name"], registered["version"], registered["alias"]) == (first.task, "1", "challenger")
    assert first.conclusion.startswith("worse than ")
    assert registered["source"] in ("student", "twin")
    assert written["parts"]["train"]["windows"] > 300
    page = (home() / "reports" / "latest" / first.task / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert first.sentence in page.replace("&#39;", "'")


def test_retrain__one_run_with_a_child_for_each_that_learns(first: Verdict) -> None:
    client = mlflow.MlflowClient()
    parent = client.get_run(first.mlflow_run_id)
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    stages = sorted(child.data.tags["tutelage.stage"] for child in children)
    assert stages == ["student", "teacher", "twin", "unprivileged"]
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert parent.data.params["recipe.teacher.views.future_sigma"] == "2.0"
    assert parent.data.metrics["student.crps"] == pytest.approx(first.evaluation.scores["student"].crps)
    assert parent.data.metrics["quality.repeated.rows"] == first.quality.filled_rows
    shown = {
        "forecast.png",
        "losses.png",
        "reliability.png",
        "coverage.png",
        "skill.png",
        "report.html",
        "verdict.json",
        "evaluation.json",
    }
    assert shown <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    for child in children:
        steps = [metric.step for metric in client.get_metric_history(child.info.run_id, "validation")]
        assert steps == list(range(1, 7))


def test_retrain__registers_with_lineage(first: Verdict) -> None:
    client = mlflow.MlflowClient()
    version = client.get_model_version(first.task, "1")
    assert version.run_id == first.mlflow_run_id
    assert {"git_commit", "spec_digest", "prefect.flow_run_id"} <= set(version.tags)
    assert "On the test part" in version.description
    [lineage] = client.get_run(first.mlflow_run_id).inputs.dataset_inputs
    assert lineage.dataset.name == "household-slice"
    model = mlflow.pyfunc.load_model(f"models:/{first.task}/1")
    assert "global_active_power_kw" in str(model.metadata.signature.inputs)
    assert "q50" in model.metadata.signature.outputs.input_names()
    assert len(model.predict(model.input_example)) == 1


def newest(kind: str) -> Path:
    """The folder of the last training of a kind."""
    return max((home() / "trainings" / kind).iterdir(), key=lambda folder: folder.stat().st_mtime)


def test_retrain__a_recursive_student(household_slice: str) -> None:
    recursive = SMALL.override({"student.recursive": True, "student.base": "simple"})
    verdict = retrain(small(household_slice, horizon_hours=3, refit=True, recipe=recursive))
    config = json.loads((newest("students") / "student" / "network.json").read_text())["config"]
    assert (config["recursive"], config["horizon"], len(config["centres"])) == (True, 3, config["bins"])
    assert {"student", "twin"} <= set(verdict.evaluation.scores)
    assert verdict.evaluation.leak_check.passed is True
    assert verdict.refit is not None
    model = mlflow.pyfunc.load_model(f"models:/{verdict.task}/{verdict.registered.version}")
    assert len(model.predict(model.input_example)) == 3


def test_retrain__second_run_takes_data_and_trainings_from_cache(first: Verdict, second: Verdict) -> None:
    states = task_states(flow_run_of(second))
    task = first.task
    for stage in ("ingest household-slice", "validate household-slice", f"features {task}"):
        assert states[stage] == "Cached"
    for stage in (f"teacher {task}", f"unprivileged {task}", f"students {task}"):
        assert states[stage] == "Cached"
    assert states[f"evaluate {task}"] == "Completed"
    assert second.mlflow_run_id != first.mlflow_run_id


def test_retrain__trainings_from_cache_have_their_history_in_the_new_run(first: Verdict, second: Verdict) -> None:
    client = mlflow.MlflowClient()
    of_run = f"tags.`mlflow.parentRunId` = '{second.mlflow_run_id}'"
    children = client.search_runs([client.get_run(second.mlflow_run_id).info.experiment_id], of_run)
    assert len(children) == 4
    for child in children:
        steps = [metric.step for metric in client.get_metric_history(child.info.run_id, "validation")]
        assert steps == list(range(1, 7))


def test_retrain__same_seed_gives_the_same_scores(first: Verdict, second: Verdict) -> None:
    assert {k: second.evaluation.scores[k] for k in first.evaluation.scores} == first.evaluation.scores
    assert second.evaluation.gains == first.evaluation.gains


def test_retrain__other_students_take_the_same_teachers(household_slice: str, second: Verdict) -> None:
    softer = SMALL.override({"distillation.alpha": 0.3})
    states = task_states(flow_run_of(retrain(small(household_slice, recipe=softer, promotion="never"))))
    assert states[f"teacher {second.task}"] == "Cached"
    assert states[f"students {second.task}"] == "Completed"


def test_retrain__an_equal_challenger_does_not_dethrone_the_champion(second: Verdict) -> None:
    client = mlflow.MlflowClient()
    assert client.get_model_version_by_alias(second.task, "champion").version == 1
    assert client.get_model_version(second.task, "2").run_id == second.mlflow_run_id
    assert second.registered.alias == "challenger"
    champion = second.evaluation.champion
    assert champion is not None
    assert champion.gain is not None
    assert champion.gain.estimate == pytest.approx(0, abs=1e-9)
    assert "no better than a simple forecast" in client.get_model_version(second.task, "2").tags["promotion"]


def test_retrain__of_one_replicate_the_chosen_one_is_its_better_half(household_slice: str, first: Verdict) -> None:
    single = retrain(small(household_slice, replicates=1, unprivileged=False, promotion="never"))
    evaluation = single.evaluation
    assert evaluation.gain_over_unprivileged is None
    assert "unprivileged" not in evaluation.scores
    assert "unprivileged" not in single.sentence
    assert evaluation.gain_by_replicate == pytest.approx([evaluation.gain_over_twin.estimate])
    assert "replicates" not in single.sentence
    # As an ONNX file here, as the network there.
    source = single.registered.source
    assert asdict(evaluation.scores["chosen"]) == pytest.approx(asdict(evaluation.scores[source]), rel=1e-4, abs=1e-3)
    if source == first.registered.source:  # trained side by side with others it ends as it does by itself
        before = first.evaluation.scores["chosen"].crps
        assert evaluation.scores["chosen"].crps == pytest.approx(before, rel=1e-3)


@pytest.mark.fault
def test_retrain__lost_files_of_a_cached_stage_are_made_again(
    household_slice: str, begun: float, second: Verdict
) -> None:
    for file in (home() / "data" / "validated").iterdir():
        if file.stat().st_mtime >= begun:
            file.unlink()
    again = retrain(small(household_slice))
    states = task_states(flow_run_of(again))
    assert (states["ingest household-slice"], states["validate household-slice"]) == ("Cached", "Completed")
    assert again.evaluation.scores["twin"] == second.evaluation.scores["twin"]


def test_retrain__reads_nothing_after_as_of(household_slice: str, second: Verdict) -> None:
    as_of = dt.datetime(2010, 7, 24, tzinfo=dt.UTC)
    verdict = retrain(small(household_slice, as_of=as_of, history_days=18, horizon_hours=6, lookback_hours=12))
    assert verdict.parts["test"].end_utc == as_of
    validated = [pl.read_parquet(file)["time_utc"].max() for file in (home() / "data" / "readings").iterdir()]
    assert dt.datetime(2010, 7, 23, 23, 59, tzinfo=dt.UTC) in validated


@pytest.fixture(scope="module")
def refit(prefect_server: None) -> list[Verdict]:
    """Two retrains with refit: one early, one at the end of the data."""
    name = write_slice(datasets_folder(), name="refit-slice", days=40)
    early = {"history_days": 12, "test_days": 7, "as_of": dt.datetime(2010, 7, 15, tzinfo=dt.UTC)}
    late = {"history_days": 18, "test_days": 18}
    based = SMALL.override({"student.base": "simple"})
    with pytest.MonkeyPatch.context() as patch:
        # A slice is too short for the eight weeks after which a refit champion is met as it is.
        patch.setattr("tutelage.judge.champion.LEAST_WEEKS", 2)
        return [
            retrain(small(name, refit=True, seed=seed, recipe=based, **times))
            for seed, times in enumerate([early, late])
        ]


def version_of(verdict: Verdict) -> ModelVersion:
    return mlflow.MlflowClient().get_model_version(verdict.registered.name, verdict.registered.version)


def test_retrain__refit_registers_a_student_of_all_the_history(refit: list[Verdict]) -> None:
    first = refit[0]
    end = dt.datetime(2010, 7, 15, tzinfo=dt.UTC)
    assert first.parts["test"].end_utc == end
    assert first.refit is not None
    assert first.refit.until_utc == end
    assert first.refit.windows >= sum(part.windows for part in first.parts.values())
    assert first.refit.epochs["student"] <= SMALL.student.training.epochs
    assert "refit on all data until 2010-07-15 00:00 UTC and registered" in first.sentence
    path = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{first.registered.name}/1"))
    registered, evaluated = load_student(exported_in(path)), load_student(path / "evaluated")
    assert (registered.trained_until, evaluated.trained_until) == (end, first.parts["validation"].end_utc)
    version = version_of(first)
    assert version.tags["refit"] == "on all until 2010-07-15 00:00 UTC"
    assert "It has no held-out scores of its own" in version.description


def test_retrain__student_and_twin_are_averaged_with_simple_forecasts(refit: list[Verdict], first: Verdict) -> None:
    client = mlflow.MlflowClient()
    for verdict in refit:
        weights, share = verdict.evaluation.base_weights, verdict.evaluation.network_share
        assert weights
        assert share is not None
        assert share + sum(weights.values()) == pytest.approx(1)
        metrics = client.get_run(verdict.mlflow_run_id).data.metrics
        assert {f"base.{name}" for name in weights} | {"base.network"} <= set(metrics)
        assert "Its quantiles are the weighted mean of those of" in version_of(verdict).description
    assert first.evaluation.network_share is None
    assert "the weighted mean" not in version_of(first).description


def test_retrain__is_held_against_simple_forecasts(first: Verdict) -> None:
    floor, scores = first.evaluation.floor, first.evaluation.scores
    assert {"last_value", "mean_of_seasons", "same_hour_7d", "same_hour_14d", "same_hour_28d", "ridge"} <= set(scores)
    assert floor.gain.estimate == pytest.approx(1 - scores["chosen"].crps / scores[floor.baseline].crps)
    assert version_of(first).tags["floor"].startswith(conclude_floor(floor))
    metrics = mlflow.MlflowClient().get_run(first.mlflow_run_id).data.metrics
    assert metrics["gain_over_floor.estimate"] == pytest.approx(floor.gain.estimate)


def test_retrain__a_refit_champion_is_met_after_all_that_it_has_seen(refit: list[Verdict]) -> None:
    champion = refit[1].evaluation.champion
    assert champion is not None
    assert champion.gain is not None
    assert 14 * 24 <= champion.gain.windows < refit[1].parts["test"].windows
    assert champion.compared_as == "registered"
    assert "before a refit" not in version_of(refit[1]).tags["promotion"]


def test_retrain__with_less_than_eight_weeks_the_pair_before_the_refit_decides(refit: list[Verdict]) -> None:
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(refit[1].task, "champion", refit[1].registered.version)
    based = SMALL.override({"student.base": "simple"})
    again = retrain(small("refit-slice", refit=True, seed=1, history_days=18, test_days=18, recipe=based))
    champion = again.evaluation.champion
    assert champion is not None
    assert champion.gain is not None
    assert champion.compared_as == "evaluated"
    assert champion.gain.windows == again.parts["test"].windows
    assert champion.gain.estimate == pytest.approx(0, abs=1e-9)
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
