"""Study: many recipes of one forecaster, scored on rolling folds inside its history, and one of them chosen."""

from prefect import flow

from flows.commit import git_commit
from flows.naming import task_of_run
from schemas.manifests import ValidatedManifest
from schemas.study import FoldScores, FoldSpan, StudyParameters, StudyResult
from tasks.clock import at_its_time
from tasks.features import build_features
from tasks.folds import lay_folds
from tasks.home import datasets_folder
from tasks.ingest import ingest
from tasks.labels import label_windows
from tasks.leaderboard import publish_study
from tasks.scores import score_students
from tasks.trials import log_fold, tracked_study
from tasks.validate import validate
from tutelage.dataset import DatasetSpec, load_dataset_spec, source_files
from tutelage.study import Trial, list_lessons, list_trials, student_part


@flow(name="study", flow_run_name=lambda: f"study {task_of_run(StudyParameters)}")
def study(parameters: StudyParameters) -> StudyResult:
    """Compare recipes on folds of the history, never on the test part, and choose one, or their average, or the twin.

    What is finished comes from cache: a study that was killed goes on when it is started again with the same
    parameters, and one with more values in its space trains only what is new.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    trials = list_trials(parameters.recipe, parameters.space, draws=parameters.draws, seed=parameters.seed)
    files = source_files(spec.source)
    with tracked_study(parameters, spec, files, trials, git_commit()) as run:
        validated = validate(ingest(files, spec, parameters.as_of), spec)
        laid = lay_folds(
            validated,
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
    """One fold: its features, each teacher's labels once, and the students of each lesson side by side."""
    seed, device = parameters.seed, parameters.device
    features = build_features(
        validated,
        spec,
        horizon_hours=parameters.horizon_hours,
        lookback_hours=parameters.lookback_hours,
        history_days=fold.learn_days,
        validation_share=parameters.validation_share,
        test_days=parameters.score_days,
        bins=parameters.recipe.bins,
        end=fold.end_utc,
    )
    teachers = dict.fromkeys(teacher for trial in trials for teacher in trial.teachers)
    inside = parameters.recipe.terms.inside
    labels = {t: label_windows(features, spec, t, inside=inside, seed=seed, device=device) for t in teachers}
    crps: dict[str, list[float]] = {}
    for lesson in list_lessons(trials):
        scored = score_students(
            features,
            spec,
            [labels[teacher] for teacher in lesson.teachers],
            [student_part(trial.recipe) for trial in lesson.trials],
            seeds=[seed + own for own in range(parameters.seeds)],
            seed=seed,
            device=device,
        )
        crps |= {trial.name: by_seed for trial, by_seed in zip(lesson.trials, scored.crps, strict=True)}
    singles = {trial.name: labels[trial.teachers[0]].teacher_crps for trial in trials if trial.kind == "single"}
    return FoldScores(fold=fold, crps=crps, teacher_crps=singles)
