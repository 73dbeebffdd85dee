import csv

import pytest

from runtime.paths import home
from runtime.registry import client
from runtime.runs import child_runs, experiment
from schemas.manifests import RunManifest
from schemas.study import StudyResult
from tasks.study.leaderboard import publish_study
from tests.runtime.builders import Published
from tests.tasks.builders import artifacts_of, mlflow_run
from tests.tasks.study.test_run import TRIALS, fold_of
from tutelage.files import read_json

GOOD, BEST = "α 0.5, σ 1", "α 1, σ 1"
SURE = [fold_of(1, {GOOD: [0.9], BEST: [0.7]}), fold_of(2, {GOOD: [0.9], BEST: [0.71]})]
CLOSE = [fold_of(1, {GOOD: [0.9], BEST: [0.94]}), fold_of(2, {GOOD: [0.9], BEST: [0.84]})]
SAME = [fold_of(1, {BEST: [0.9]}), fold_of(2, {BEST: [1.08]})]


@pytest.fixture
def run(request: pytest.FixtureRequest) -> RunManifest:
    experiment_id = experiment("leaderboards")
    run_id = client().create_run(experiment_id, run_name=request.node.name).info.run_id
    names = {trial.name: trial.name for trial in TRIALS}
    children = child_runs(experiment_id, run_id, "k", names, tag="tutelage.trial")
    return RunManifest(key="k", experiment_id=experiment_id, run_id=run_id, children=children)


def publish(folds: list[object], run: RunManifest, rule: str = "one-standard-error") -> StudyResult:
    return publish_study.fn("studied-2h", "kW", folds, TRIALS, run, rule=rule)


def test_publish_study__chooses_the_best_where_it_is_clearly_better(run: RunManifest, published: Published) -> None:
    result = publish(SURE, run)
    assert (result.chosen, result.best, result.within_one_standard_error) == (BEST, BEST, [BEST])
    assert result.sentence.startswith(f"studied-2h, {len(TRIALS)} trials on 2 folds: ")
    assert f"{BEST} " in result.sentence
    assert "CRPS 0.7050 kW, 29.5 % lower than its twin's" in result.sentence
    assert result.recipe.distillation.alpha == 1.0
    assert result.recipe.distillation.small_data_alpha is None
    assert result.averaged_teachers == []
    [((rows,), values)] = published.of("create_table_artifact", "study-studied-2h")
    assert rows[0]["trial"] == BEST
    assert values["description"] == result.sentence


def test_publish_study__the_leaderboard_is_ordered_by_crps(run: RunManifest) -> None:
    rows = publish(SURE, run).leaderboard
    assert [row.place for row in rows] == list(range(1, len(TRIALS) + 1))
    assert [row.trial for row in rows[:2]] == [BEST, GOOD]
    assert [row.crps_student for row in rows] == sorted(row.crps_student for row in rows)
    by_name = {row.trial: row for row in rows}
    assert by_name[GOOD].crps_teacher == 0.5
    assert by_name[BEST].crps_teacher is None
    assert by_name[BEST].gain_over_twin_worst == pytest.approx(0.29)
    assert by_name[BEST].gain_over_best_twin == pytest.approx(0.295)
    assert (by_name["twin"].future_sigma, by_name["α 1, σ none"].future_sigma) == (None, "none")
    assert by_name[BEST].choice == "chosen"


def test_publish_study__is_written_and_logged(run: RunManifest) -> None:
    result = publish(SURE, run)
    folder = home() / "studies" / run.run_id
    assert StudyResult.model_validate(read_json(folder / "study.json")) == result
    assert result.sentence in (folder / "leaderboard.md").read_text()
    with (folder / "leaderboard.csv").open(encoding="utf-8") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [row.trial for row in result.leaderboard]
    assert {"study.json", "leaderboard.md", "leaderboard.csv"} <= artifacts_of(run.run_id)
    assert mlflow_run(run.run_id).data.tags["chosen"] == BEST
    best = mlflow_run(run.children[BEST])
    assert best.data.tags["choice"] == "chosen"
    assert best.data.metrics["gain_over_best_twin"] == pytest.approx(0.295)
    assert "crps_teacher" not in best.data.metrics
    assert mlflow_run(run.children[GOOD]).data.metrics["crps_teacher"] == 0.5


@pytest.fixture
def unlogged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a study chooses does not depend on MLflow."""
    monkeypatch.setattr("tasks.study.leaderboard.log_metrics", lambda *given: None)


@pytest.mark.usefixtures("unlogged")
def test_publish_study__takes_the_lower_alpha_where_the_best_is_not_clearly_better(run: RunManifest) -> None:
    result = publish(CLOSE, run)
    assert (result.chosen, result.best) == (GOOD, BEST)
    assert {row.trial: row.choice for row in result.leaderboard}[BEST] == "within one standard error"
    assert f"; {BEST} has the lowest, 0.8900 kW, " in result.sentence


@pytest.mark.usefixtures("unlogged")
def test_publish_study__takes_the_twin_where_no_teacher_is_clearly_better(run: RunManifest) -> None:
    result = publish(SAME, run)
    assert (result.chosen, result.best) == ("twin", BEST)
    assert "its twin's" not in result.sentence
    assert result.recipe.distillation.alpha == 0


@pytest.mark.usefixtures("unlogged")
def test_publish_study__by_the_rule_average_takes_all_teachers(run: RunManifest) -> None:
    [average] = [trial for trial in TRIALS if trial.kind == "average"]
    folds = [fold_of(number, {average.name: [0.5 + number / 100]}) for number in (1, 2)]
    result = publish(folds, run, rule="average")
    assert result.chosen == average.name
    assert result.averaged_teachers == list(average.teachers)
    assert "(rule: average)" in result.sentence
