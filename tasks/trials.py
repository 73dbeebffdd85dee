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
from tutelage.choice import Result
from tutelage.dataset import DatasetSpec
from tutelage.study import Trial, varied_axes

TRIAL_TAG = "tutelage.trial"


@task(
    name="open study", task_run_name="runs {parameters.task}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2
)
def open_study(
    key: str, parameters: StudyParameters, spec: DatasetSpec, trials: list[Trial], commit: str
) -> RunManifest:
    """Continue this study's unfinished MLflow run, or start one, with a child a trial.

    Studies have an experiment of their own, and a trial only the parameters that tell it from the others: what is the
    same for all is in the parent's `parameters.json`. So the table and parallel coordinates show what was varied.
    """
    experiment_id, name = experiment(f"{parameters.task}-study"), f"study, {len(trials)} trials"
    run_id = continued_run(experiment_id, key, stage="study", name=name, commit=commit)
    describe_run(run_id, parameters, spec, leave_out=("recipe", "space"))
    client().log_dict(run_id, parameters.model_dump(mode="json"), "parameters.json")
    names = {trial.name: trial.name for trial in trials}
    children = child_runs(experiment_id, run_id, key, names, commit=commit, tag=TRIAL_TAG)
    for trial in trials:
        client().set_tag(children[trial.name], "kind", trial.kind)
        for axis in varied_axes(trials):
            if axis in trial.settings:
                value = trial.settings[axis]
                client().log_param(children[trial.name], axis, "none" if value is None else value)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children=children)


@contextmanager
def tracked_study(
    parameters: StudyParameters, spec: DatasetSpec, files: list[Path], trials: Sequence[Trial], commit: str
) -> Iterator[RunManifest]:
    """One study's MLflow runs, as of `opened_alone`."""
    key = work_key(parameters, spec, files)
    with opened_alone(key, lambda: open_study(key, parameters, spec, list(trials), commit)) as run:
        yield run


@task(name="log fold", cache_policy=NO_CACHE, retries=2)
def log_fold(scores: list[FoldScores], trials: list[Trial], run: RunManifest) -> None:
    """Log the last fold of some as a step of each trial's metrics: its own figures, and the means over folds so far.

    Whoever watches a study sees the table that it would end with now. A step that is there is left alone.
    """
    number = scores[-1].fold.number
    for trial in trials:
        result = result_of(trial, scores)
        row = {
            "fold": number,
            "crps_student": result.mean_crps,
            "crps_twin": result.mean_twin_crps,
            "gain_vs_twin": result.gain,
            "fold_crps_student": result.crps[-1],
            "fold_crps_twin": result.twin_crps[-1],
            "fold_gain_vs_twin": result.gain_by_fold[-1],
        }
        log_history(run.children[trial.name], [row], step="fold")


def result_of(trial: Trial, scores: list[FoldScores]) -> Result:
    """What a trial scored on some folds."""

    def by_fold(name: str) -> tuple[float, ...]:
        return tuple(sum(fold.crps[name]) / len(fold.crps[name]) for fold in scores)

    return Result(trial.name, trial.kind, trial.recipe.alpha, by_fold(trial.name), by_fold(trial.twin))
