"""Study: score many recipes of one forecaster on rolling folds of its history, and choose one of them."""

from prefect import flow

from flows.naming import task_of_run
from flows.pieces import Fold, score_fold
from runtime.clock import at_its_time
from runtime.engine import each_of
from runtime.paths import datasets_folder
from runtime.weights import with_its_weights
from schemas.study import StudyParameters, StudyResult
from tasks.fetch import fetch
from tasks.retrain.ingest import ingest
from tasks.retrain.validate import validate
from tasks.study.folds import lay_folds
from tasks.study.leaderboard import publish_study
from tasks.study.run import log_fold, tracked_study
from tutelage.data.dataset import load_dataset_spec
from tutelage.distil.dataset import require_steps
from tutelage.judge.trials import list_trials


@flow(name="study", flow_run_name=lambda: f"study {task_of_run(StudyParameters)}")
def study(parameters: StudyParameters) -> StudyResult:
    """Compare recipes on folds of the history, never on the test part, and choose one, or their average, or the twin.

    Finished stages come from the cache: an interrupted study continues when it is started again with the same
    parameters, and a study with more values in its space trains only the new trials.
    """
    parameters = with_its_weights(at_its_time(parameters))
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    trials = list_trials(parameters.recipe, parameters.space, max_trials=parameters.max_trials, seed=parameters.seed)
    require_steps(
        parameters.recipe, spec.grid, horizon_hours=parameters.horizon_hours, lookback_hours=parameters.lookback_hours
    )
    files = fetch(spec)
    with tracked_study(parameters, spec, files, trials) as run:
        validated = validate(ingest(files, spec, parameters.as_of, spec.ahead_hours(parameters.horizon_hours)), spec)
        laid = lay_folds(
            validated,
            spec,
            folds=parameters.folds,
            score_days=parameters.score_days,
            test_days=parameters.test_days,
            history_days=parameters.history_days,
            train_days=parameters.train_days,
            validation_share=parameters.validation_share,
        )
        scores = []
        pieces = [Fold(fold, validated, spec, trials, parameters) for fold in laid.folds]
        for scored in each_of(score_fold, pieces, parameters.engine, name="fold", device=parameters.device):
            scores.append(scored)
            log_fold(scores, trials, run)
        return publish_study(parameters.task, spec.target_column.unit, scores, trials, run, rule=parameters.rule)
