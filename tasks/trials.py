"""A study's MLflow runs: the parent is the study, each trial a child with its settings as parameters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from schemas.manifests import RunManifest
from schemas.study import FoldScores, StudyParameters
from tasks.tracking import (
    child_runs,
    client,
    continued_run,
    describe_run,
    experiment,
    log_history,
    opened_alone,
    work_key,
)
from tutelage.dataset import DatasetSpec
from tutelage.study import Trial

TRIAL_TAG = "tutelage.trial"


@task(
    name="open study", task_run_name="runs {parameters.task}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2
)
def open_study(
    key: str, parameters: StudyParameters, spec: DatasetSpec, trials: list[Trial], commit: str
) -> RunManifest:
    """Continue this study's unfinished MLflow run, or start one, with a child a trial.

    Studies have an experiment of their own: the columns of its table are what trials have in common.
    """
    experiment_id, name = experiment(f"{parameters.task}-study"), f"study seed {parameters.seed}"
    run_id = continued_run(experiment_id, key, stage="study", name=name, commit=commit)
    describe_run(run_id, parameters, spec)
    names = {trial.name: trial.name for trial in trials}
    children = child_runs(experiment_id, run_id, key, names, commit=commit, tag=TRIAL_TAG)
    for trial in trials:
        client().set_tag(children[trial.name], "kind", trial.kind)
        for setting, value in trial.settings.items():
            client().log_param(children[trial.name], setting, "none" if value is None else value)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children=children)


@contextmanager
def tracked_study(
    parameters: StudyParameters, spec: DatasetSpec, files: list[Path], trials: Sequence[Trial], commit: str
) -> Iterator[RunManifest]:
    """One study's MLflow runs, as of `opened_alone`."""
    key = work_key(parameters, spec, files)
    with opened_alone(key, lambda: open_study(key, parameters, spec, list(trials), commit)) as run:
        yield run


@task(name="log fold", task_run_name="log fold {scores.fold.number}", cache_policy=NO_CACHE, retries=2)
def log_fold(scores: FoldScores, trials: list[Trial], run: RunManifest) -> None:
    """Log what a fold said of each trial as one step of its by-fold metrics; a fold that is there is left alone."""
    for trial in trials:
        student, twin = (sum(seeds) / len(seeds) for seeds in (scores.crps[trial.name], scores.crps[trial.twin]))
        row = {
            "fold": scores.fold.number,
            "fold_crps_student": student,
            "fold_crps_twin": twin,
            "fold_gain_vs_twin": 1 - student / twin,
        }
        log_history(run.children[trial.name], [row], step="fold")
