import pytest

from runtime.registry import client
from schemas.manifests import RunManifest
from schemas.study import FoldScores, FoldSpan, StudyParameters
from tasks.study.run import TRIAL_TAG, log_fold, open_study, result_of
from tests.runtime.builders import DAY, serverless
from tests.tasks.builders import artifacts_of, mlflow_run, steps_of
from tests.tutelage.builders import small_recipe
from tests.tutelage.data.builders import START
from tutelage.data.dataset import DatasetSpec
from tutelage.judge.trials import Space, Trial, list_trials

SPACE = Space(alpha=(0.5, 1.0), future_sigma=(1.0, None))
TRIALS = list_trials(small_recipe(), SPACE, max_trials=None, seed=0)
PARAMETERS = StudyParameters(dataset="studied", horizon_hours=2, lookback_hours=6, space=SPACE, device="cpu")


def fold_of(number: int, crps: dict[str, list[float]]) -> FoldScores:
    """One fold's scores; trials without a score of their own have 1."""
    span = FoldSpan(number=number, learn_days=20, score_start_utc=START, end_utc=START + 4 * DAY)
    everything = {trial.name: [1.0, 1.0] for trial in TRIALS} | crps
    return FoldScores(fold=span, crps=everything, teacher_crps={"α 0.5, σ 1": 0.5})


def trial_of(name: str) -> Trial:
    [trial] = [trial for trial in TRIALS if trial.name == name]
    return trial


FOLDS = [
    fold_of(1, {"α 0.5, σ 1": [0.8, 1.0], "twin": [1.0, 1.2]}),
    fold_of(2, {"α 0.5, σ 1": [0.6, 0.8], "twin": [0.9, 1.1]}),
]


def test_result_of__is_the_mean_over_seeds_by_fold() -> None:
    result = result_of(trial_of("α 0.5, σ 1"), FOLDS)
    assert (result.name, result.kind, result.alpha) == ("α 0.5, σ 1", "single", 0.5)
    assert result.crps == pytest.approx((0.9, 0.7))
    assert result.twin_crps == pytest.approx((1.1, 1.0))


def test_result_of__a_twin_is_its_own_twin() -> None:
    result = result_of(trial_of("twin"), FOLDS[:1])
    assert result.kind == "twin"
    assert result.crps == result.twin_crps == pytest.approx((1.1,))
    assert result.gain == 0


@pytest.fixture(scope="module")
def opened(spec: DatasetSpec) -> RunManifest:
    with serverless():
        return open_study.fn("study-key", PARAMETERS, spec, TRIALS)


def test_open_study__has_a_child_for_each_trial(opened: RunManifest) -> None:
    assert list(opened.children) == [trial.name for trial in TRIALS]
    assert client().get_experiment(opened.experiment_id).name == "studied-2h-study"
    parent = mlflow_run(opened.run_id)
    assert parent.info.run_name == f"study, {len(TRIALS)} trials"
    assert not [name for name in parent.data.params if name.startswith(("recipe", "space"))]
    assert "parameters.json" in artifacts_of(opened.run_id)


def test_open_study__a_trial_has_what_is_varied_as_parameters(opened: RunManifest) -> None:
    runs = {name: mlflow_run(run_id) for name, run_id in opened.children.items()}
    assert runs["twin"].data.params == {"alpha": "0.0"}
    assert runs["α 0.5, σ 1"].data.params == {"alpha": "0.5", "future_sigma": "1.0"}
    assert runs["α 1, σ none"].data.params == {"alpha": "1.0", "future_sigma": "none"}
    kinds = {name: run.data.tags["kind"] for name, run in runs.items()}
    assert set(kinds.values()) == {"twin", "single", "average"}
    assert all(run.data.tags[TRIAL_TAG] == name for name, run in runs.items())


def test_log_fold__is_a_step_with_the_means_so_far(opened: RunManifest) -> None:
    trials = [trial_of(name) for name in ("twin", "α 0.5, σ 1")]
    for folds in (FOLDS[:1], FOLDS, FOLDS):
        log_fold.fn(folds, trials, opened)
    child = opened.children["α 0.5, σ 1"]
    history = client().get_metric_history(child, "crps_student")
    assert [(each.step, each.value) for each in history] == [(1, pytest.approx(0.9)), (2, pytest.approx(0.8))]
    metrics = mlflow_run(child).data.metrics
    assert metrics["gain_over_twin"] == pytest.approx(1 - 0.8 / 1.05)
    assert metrics["fold_crps_student"] == pytest.approx(0.7)
    assert metrics["fold_gain_over_twin"] == pytest.approx(0.3)
    assert steps_of(opened.children["twin"], "fold_crps_twin") == [1, 2]
    assert steps_of(opened.children["α 1, σ 1"], "crps_student") == []
