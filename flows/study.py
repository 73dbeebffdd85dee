"""Study: score many recipes of one forecaster on rolling folds of its history, and choose one of them."""

from prefect import flow

from flows.naming import task_of_run
from runtime.clock import at_its_time
from runtime.paths import datasets_folder
from schemas.retrain import ValidatedManifest
from schemas.study import FoldScores, FoldSpan, StudyParameters, StudyResult
from tasks.fetch import fetch
from tasks.retrain.features import build_features
from tasks.retrain.ingest import ingest
from tasks.retrain.validate import validate
from tasks.study.folds import lay_folds
from tasks.study.labels import label_fold
from tasks.study.leaderboard import publish_study
from tasks.study.run import log_fold, tracked_study
from tasks.study.scores import score_students
from tutelage.data.dataset import DatasetSpec, load_dataset_spec
from tutelage.distil.dataset import require_steps
from tutelage.distil.recipe import Recipe, TrainingPlan, student_part
from tutelage.judge.trials import Trial, group_trials, list_trials


@flow(name="study", flow_run_name=lambda: f"study {task_of_run(StudyParameters)}")
def study(parameters: StudyParameters) -> StudyResult:
    """Compare recipes on folds of the history, never on the test part, and choose one, or their average, or the twin.

    Finished stages come from the cache: an interrupted study continues when it is started again with the same
    parameters, and a study with more values in its space trains only the new trials.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    trials = list_trials(parameters.recipe, parameters.space, max_trials=parameters.max_trials, seed=parameters.seed)
    require_steps(
        parameters.recipe, spec.grid, horizon_hours=parameters.horizon_hours, lookback_hours=parameters.lookback_hours
    )
    files = fetch(spec)
    with tracked_study(parameters, spec, files, trials) as run:
        validated = validate(ingest(files, spec, parameters.as_of), spec)
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
        for fold in laid.folds:
            scores.append(score_fold(fold, validated, spec, trials, parameters))
            log_fold(scores, trials, run)
        return publish_study(parameters.task, spec.target_column.unit, scores, trials, run, rule=parameters.rule)


def score_fold(
    fold: FoldSpan, validated: ValidatedManifest, spec: DatasetSpec, trials: list[Trial], parameters: StudyParameters
) -> FoldScores:
    """Score all trials on one fold: label with each teacher once, and train each group of students side by side."""
    plan = TrainingPlan(recipe=parameters.recipe, seed=parameters.seed, device=parameters.device)
    features = build_features(
        validated,
        spec,
        horizon_hours=parameters.horizon_hours,
        lookback_hours=parameters.lookback_hours,
        history_days=fold.learn_days,
        validation_share=parameters.validation_share,
        test_days=parameters.score_days,
        bins=plan.recipe.distillation.bins,
        end=fold.end_utc,
    )
    hidden_states = plan.recipe.distillation.terms.needs_hidden_states
    labels = {
        teacher: label_fold(features, spec, plan.with_recipe(teacher), hidden_states=hidden_states)
        for teacher in dict.fromkeys(teacher for trial in trials for teacher in trial.teachers)
    }
    crps: dict[str, list[float]] = {}
    for group in group_trials(trials):
        scored = score_students(
            features,
            spec,
            [labels[teacher] for teacher in group.teachers],
            [student_part(trial.recipe) for trial in group.trials],
            plan.with_recipe(Recipe()),
            seeds=[parameters.seed + number for number in range(parameters.seeds)],
        )
        crps |= {trial.name: by_seed for trial, by_seed in zip(group.trials, scored.crps, strict=True)}
    singles = {trial.name: labels[trial.teachers[0]].teacher_crps for trial in trials if trial.kind == "single"}
    return FoldScores(fold=fold, crps=crps, teacher_crps=singles)
