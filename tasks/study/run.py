"""A study's MLflow runs: the study as parent, each trial as a child with its settings as parameters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime.registry import client
from runtime.runs import child_runs, continued_run, describe_run, experiment, log_history, opened_alone, work_key
from runtime.stage import stage
from schemas.manifests import RunManifest
from schemas.study import FoldScores, StudyParameters
from tutelage.data.dataset import DatasetSpec
from tutelage.judge.choice import TrialResult
from tutelage.judge.trials import Trial, varied_axes

FLOW = "flows.study"
TRIAL_TAG = "tutelage.trial"


@stage("open study", run_name="runs {parameters.task}")
def open_study(key: str, parameters: StudyParameters, spec: DatasetSpec, trials: list[Trial]) -> RunManifest:
    """Continue this study's unfinished MLflow run, or start one, with one child per trial.

    The studies of a task have their own experiment, and a trial logs only the parameters that differ between trials;
    the others are in the parent's `parameters.json`. So tables and parallel coordinates show what the study varies.
    """
    experiment_id, name = experiment(f"{parameters.task}-study"), f"study, {len(trials)} trials"
    run_id = continued_run(experiment_id, key, stage="study", name=name)
    describe_run(run_id, parameters, spec, leave_out=("recipe", "space"))
    client().log_dict(run_id, parameters.model_dump(mode="json"), "parameters.json")
    names = {trial.name: trial.name for trial in trials}
    children = child_runs(experiment_id, run_id, key, names, tag=TRIAL_TAG)
    for trial in trials:
        client().set_tag(children[trial.name], "kind", trial.kind)
        for axis in varied_axes(trials):
            if axis in trial.settings:
                value = trial.settings[axis]
                client().log_param(children[trial.name], axis, "none" if value is None else value)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children=children)


@contextmanager
def tracked_study(
    parameters: StudyParameters, spec: DatasetSpec, files: list[Path], trials: Sequence[Trial]
) -> Iterator[RunManifest]:
    """One study's MLflow runs: FINISHED or FAILED when the block ends.

    Raises BusyError where another process does the same work.
    """
    key = work_key(FLOW, parameters, spec, files)
    with opened_alone(key, lambda: open_study(key, parameters, spec, list(trials))) as run:
        yield run


@stage("log fold", run_name="log fold")
def log_fold(scores: list[FoldScores], trials: list[Trial], run: RunManifest) -> None:
    """Log the last of these folds as a step of each trial's metrics: its scores, and the means over folds so far.

    So the table of a running study shows its result so far. An existing step is not changed.
    """
    number = scores[-1].fold.number
    for trial in trials:
        result = result_of(trial, scores)
        row = {
            "fold": number,
            "crps_student": result.mean_crps,
            "crps_twin": result.mean_twin_crps,
            "gain_over_twin": result.gain,
            "fold_crps_student": result.crps[-1],
            "fold_crps_twin": result.twin_crps[-1],
            "fold_gain_over_twin": result.gain_by_fold[-1],
        }
        log_history(run.children[trial.name], [row], step="fold")


def result_of(trial: Trial, scores: list[FoldScores]) -> TrialResult:
    """A trial's scores on these folds."""

    def by_fold(name: str) -> tuple[float, ...]:
        return tuple(sum(fold.crps[name]) / len(fold.crps[name]) for fold in scores)

    alpha = trial.recipe.distillation.alpha
    return TrialResult(trial.name, trial.kind, alpha, by_fold(trial.name), by_fold(trial.twin))
