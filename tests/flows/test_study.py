import csv
import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
import yaml
from mlflow.entities import Run
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import PREFECT_API_URL

from flows.study import study
from runtime.paths import datasets_folder, home
from schemas.study import StudyParameters, StudyResult
from tasks.retrain.features import build_features
from tasks.retrain.ingest import ingest
from tasks.retrain.validate import validate
from tasks.study.folds import lay_folds
from tests.tutelage.builders import recipe_of
from tests.tutelage.chronos import write_chronos
from tutelage.data.dataset import load_dataset_spec
from tutelage.distil.recipe import Views
from tutelage.errors import DataError
from tutelage.judge.trials import Space
from tutelage.model.kinds import Budget

pytestmark = pytest.mark.usefixtures("prefect_server")

ROOT = Path(__file__).parents[2]
START, DAYS, TEST_DAYS = dt.datetime(2024, 1, 1), 40, 8
BUDGET = Budget(epochs=3, patience=3, batch_size=64, learning_rate=3e-3)
RECIPE = recipe_of(
    views=Views(minutes_hours=1, auxiliary=True),
    ensemble_size=2,
    teacher_width=16,
    student_width=16,
    bins=8,
    noise_draws=1,
    teacher_training=BUDGET,
    student_training=BUDGET,
)
SPACE = Space(alpha=(0.5, 1.0), future_sigma=(1.0, None))
TRIALS = [
    "twin",
    "α 0.5, σ 1",
    "α 0.5, σ none",
    "α 1, σ 1",
    "α 1, σ none",
    "average, α 0.75",
]


def write_meter(name: str) -> Path:
    """A made-up meter: a daily wave with noise every half hour, and a heater that the student never sees."""
    folder = datasets_folder()
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    steps = DAYS * 48
    heater = (random.random(steps) < 0.2).repeat(4)[:steps].astype(float)
    power = 2 + np.sin(np.arange(steps) * 2 * np.pi / 48) + heater + 0.2 * random.normal(size=steps)
    times = [START + dt.timedelta(minutes=30 * step) for step in range(steps)]
    table = pl.DataFrame({"time": times, "power": power.clip(0), "heat": heater})
    path = folder / f"{name}.csv"
    table.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    column = {"minimum": 0, "maximum": 20}
    spec = {
        "name": name,
        "description": "a made-up meter",
        "source": {"path": str(path)},
        "timestamp": {"columns": ["time"], "timezone": "UTC"},
        "target": "power_kw",
        "raw_step": "PT30M",
        "student_step": "PT1H",
        "columns": [
            {"name": "power_kw", "source": "power", "role": "observed", "unit": "kW", **column},
            {"name": "heat_kw", "source": "heat", "role": "privileged", "unit": "kW", **column},
        ],
        "calendar": {"timezone": "UTC"},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def asked(**changes: object) -> StudyParameters:
    values = {
        "dataset": "meter",
        "horizon_hours": 2,
        "lookback_hours": 6,
        "history_days": 30,
        "folds": 2,
        "score_days": 4,
        "test_days": TEST_DAYS,
        "recipe": RECIPE,
        "space": SPACE,
        "seeds": 2,
        "device": "cpu",
    }
    return StudyParameters.model_validate(values | changes)


def children_of(run_id: str) -> dict[str, Run]:
    client = mlflow.MlflowClient()
    parent = client.get_run(run_id)
    runs = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.info.run_name: run for run in runs}


def task_states(run_id: str) -> list[tuple[str, str]]:
    """Name and final state of each task run of the flow run that the study's MLflow run was last continued by."""
    flow_run_id = mlflow.MlflowClient().get_run(run_id).data.tags["prefect.flow_run_id"]
    with get_client(sync_client=True) as prefect:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        found = prefect.read_task_runs(flow_run_filter=wanted)
    found.sort(key=lambda run: run.expected_start_time)
    return [(re.sub(r"-[0-9a-f]{3}$", "", run.name), run.state_name) for run in found]


ENDS_AFTER_A_FOLD = """
import os, signal, sys
import flows.study
from schemas.study import StudyParameters

log_fold = flows.study.log_fold

def and_be_killed(*given):
    log_fold(*given)
    os.kill(os.getpid(), signal.SIGKILL)

flows.study.log_fold = and_be_killed
flows.study.study(StudyParameters.model_validate_json(sys.argv[1]))
"""


def killed_after_a_fold(parameters: StudyParameters) -> str:
    """Run a study in a process that is killed as soon as its first fold is logged; the MLflow run that it left.

    It kills itself: from outside, a kill comes when the next fold is already at work.
    """
    process = subprocess.run(
        [sys.executable, "-c", ENDS_AFTER_A_FOLD, parameters.model_dump_json()],
        cwd=ROOT,
        env=os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    experiment = mlflow.MlflowClient().get_experiment_by_name(f"{parameters.task}-study")
    of_study = "tags.`tutelage.stage` = 'study'"
    [run] = mlflow.MlflowClient().search_runs([experiment.experiment_id], of_study)
    return str(run.info.run_id)


@pytest.fixture(scope="module")
def meter() -> Path:
    return write_meter("meter")


@pytest.fixture(scope="module")
def killed(meter: Path, prefect_server: None) -> str:
    return killed_after_a_fold(asked())


@pytest.fixture(scope="module")
def first(killed: str) -> StudyResult:
    """The study that was killed, gone on with."""
    assert mlflow.MlflowClient().get_run(killed).info.status == "RUNNING"
    return study(asked())


@pytest.mark.fault
def test_study__a_killed_one_goes_on_with_what_it_had(killed: str, first: StudyResult) -> None:
    assert first.mlflow_run_id == killed
    states = task_states(killed)
    of_fold = {
        number: [s for name, s in states if f" {day}" in name] for number, day in ((1, "2024-01-25"), (2, "2024-01-29"))
    }
    assert set(of_fold[1]) == {"Cached"}
    assert len(of_fold[1]) == len(of_fold[2]) == 2 + 4  # teachers, and groups: twin, two of singles, average
    assert set(of_fold[2]) == {"Completed"}


def test_study__each_trial_is_a_child_with_plain_names(first: StudyResult) -> None:
    children = children_of(first.mlflow_run_id)
    assert sorted(children) == sorted(TRIALS)
    assert mlflow.MlflowClient().get_run(first.mlflow_run_id).info.status == "FINISHED"
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    single = children["α 1, σ 1"]
    assert single.data.params == {"alpha": "1.0", "future_sigma": "1.0"}
    figures = {
        "crps_student",
        "crps_twin",
        "gain_over_twin",
        "gain_over_twin_se",
        "gain_over_twin_worst",
        "gain_over_best_twin",
    }
    by_fold = {"fold_crps_student", "fold_crps_twin", "fold_gain_over_twin"}
    assert set(single.data.metrics) == figures | by_fold | {"crps_teacher"}
    assert set(children["twin"].data.metrics) == figures | by_fold
    assert children["twin"].data.params == {"alpha": "0.0"}
    assert children["α 1, σ none"].data.params["future_sigma"] == "none"


def test_study__figures_are_means_over_folds_logged_once_each(first: StudyResult) -> None:
    client = mlflow.MlflowClient()
    for run in children_of(first.mlflow_run_id).values():
        student, twin = (
            client.get_metric_history(run.info.run_id, name) for name in ("fold_crps_student", "fold_crps_twin")
        )
        assert [metric.step for metric in student] == [1, 2]
        means = [float(np.mean([metric.value for metric in history])) for history in (student, twin)]
        found = run.data.metrics
        assert [found["crps_student"], found["crps_twin"]] == pytest.approx(means)
        assert found["gain_over_twin"] == pytest.approx(1 - means[0] / means[1])


def test_study__the_leaderboard_is_an_artifact_here_and_there(first: StudyResult) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(run_id=first.mlflow_run_id, artifact_path=""))
    with (folder / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["trial"] for row in rows) == sorted(TRIALS)
    assert [int(row["place"]) for row in rows] == list(range(1, 7))
    crps = [float(row["crps_student"]) for row in rows]
    assert crps == sorted(crps)
    assert [row["trial"] for row in rows if row["choice"] == "chosen"] == [first.chosen]
    assert first.sentence in (folder / "leaderboard.md").read_text()
    assert StudyResult.model_validate(json.loads((folder / "study.json").read_text())) == first
    with get_client(sync_client=True) as prefect:
        [table] = [a for a in prefect.read_artifacts() if a.key == "study-meter-2h"]
    assert [row["trial"] for row in json.loads(table.data)] == [row["trial"] for row in rows]
    assert table.description == first.sentence


def test_study__folds_end_where_the_test_part_begins(first: StudyResult) -> None:
    end = (START + dt.timedelta(days=DAYS - TEST_DAYS)).replace(tzinfo=dt.UTC)
    assert first.folds[-1].end_utc == end
    assert [fold.learn_days for fold in first.folds] == [22, 26]


@pytest.fixture(scope="module")
def wider(first: StudyResult) -> StudyResult:
    """The same with one more α."""
    return study(asked(space=SPACE.model_copy(update={"alpha": (0.5, 0.8, 1.0)})))


def test_study__with_more_values_trains_no_teacher_and_no_twin_again(first: StudyResult, wider: StudyResult) -> None:
    assert wider.mlflow_run_id != first.mlflow_run_id
    assert len(wider.leaderboard) == 8
    states = task_states(wider.mlflow_run_id)
    assert [state for name, state in states if name.startswith("teacher")] == ["Cached"] * 4
    assert [state for name, state in states if name.startswith("students")] == ["Cached", *["Completed"] * 3] * 2


def test_study__the_same_recipes_score_the_same_beside_others(first: StudyResult, wider: StudyResult) -> None:
    before, after = ({row.trial: row.crps_student for row in result.leaderboard} for result in (first, wider))
    assert after["twin"] == before["twin"]
    for name in TRIALS[1:-1]:
        assert after[name] == pytest.approx(before[name], rel=1e-4)


def fold_bytes(path: Path) -> list[bytes]:
    """All that the last fold of a file's history is made of."""
    spec = load_dataset_spec(path.with_suffix(".yaml"))
    validated = validate.fn(ingest.fn([path], spec, None), spec)
    parameters = asked()
    laid = lay_folds.fn(
        validated,
        spec,
        folds=2,
        score_days=4,
        test_days=TEST_DAYS,
        history_days=30,
        train_days=None,
        validation_share=0.2,
    )
    fold = laid.folds[-1]
    features = build_features.fn(
        validated,
        spec,
        horizon_hours=parameters.horizon_hours,
        lookback_hours=parameters.lookback_hours,
        history_days=fold.learn_days,
        validation_share=0.2,
        test_days=4,
        bins=8,
        end=fold.end_utc,
    )
    return [file.read_bytes() for file in sorted(features.folder.iterdir())]


def test_study__never_reads_the_test_part(prefect_server: None) -> None:
    path = write_meter("untouched")
    before = fold_bytes(path)
    table = pl.read_csv(path, try_parse_dates=True)
    edge = START + dt.timedelta(days=DAYS - TEST_DAYS)

    def tripled(condition: pl.Expr) -> None:
        power = pl.when(condition).then(pl.col("power") * 3).otherwise("power")
        table.with_columns(power=power).write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")

    tripled(pl.col("time") >= edge)
    assert fold_bytes(path) == before
    tripled(pl.col("time") >= edge - dt.timedelta(hours=1))
    assert fold_bytes(path) != before


def test_study__a_pretrained_model_is_one_of_the_teachers(meter: Path, tmp_path: Path, first: StudyResult) -> None:
    folder = write_chronos(tmp_path / "chronos", "bolt")
    blind = SPACE.model_copy(update={"alpha": (1.0,), "future_sigma": (None,)})
    recipes = RECIPE, RECIPE.override({"teacher.pretrained_folder": str(folder)})
    without, with_it = (study(asked(recipe=recipe, space=blind)).leaderboard for recipe in recipes)
    alone, both = ({row.trial: row.crps_teacher for row in rows} for rows in (without, with_it))
    assert alone.keys() == both.keys() == {"twin", "α 1"}
    assert alone["α 1"] != both["α 1"]


def test_study__too_short_a_history_is_told_and_the_run_says_failed(meter: Path, first: StudyResult) -> None:
    with pytest.raises(DataError, match="the history is too short for the folds: 8 x 4 scored days"):
        study(asked(folds=8))
    client = mlflow.MlflowClient()
    [experiment] = {client.get_run(first.mlflow_run_id).info.experiment_id}
    [newest, *_] = client.search_runs([experiment], "tags.`tutelage.stage` = 'study'")
    assert newest.info.status == "FAILED"
    assert home().joinpath("studies", newest.info.run_id).exists() is False
