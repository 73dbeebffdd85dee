"""A retrain's MLflow runs: the parent, and one child for the teacher and each trained contender."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow

from runtime.artifacts import VERDICT
from runtime.registry import client
from runtime.runs import (
    PARENT_TAG,
    child_runs,
    continued_run,
    describe_run,
    experiment,
    finished_run,
    opened_alone,
    work_key,
)
from runtime.stage import stage
from schemas.manifests import RunManifest
from schemas.retrain import RetrainParameters
from schemas.verdict import Verdict
from tutelage.data.dataset import DatasetSpec
from tutelage.files import read_json
from tutelage.forecasts import Contender

STAGE = "retrain"
FLOW = "flows.retrain"


@stage("open run", run_name="run {parameters.task}")
def open_run(
    key: str, parameters: RetrainParameters, spec: DatasetSpec, within: RunManifest | None, called: str = ""
) -> RunManifest:
    """Continue this work's unfinished MLflow run, or start one, with its children and parameters.

    within: the run of the backtest or ablation that this retrain is part of; called: what is different about it
    """
    experiment_id, name = experiment(parameters.task), f"{parameters.task} seed {parameters.seed}"
    if within is not None:
        experiment_id, name = within.experiment_id, f"{name} {called}"
    run_id = continued_run(experiment_id, key, stage=STAGE, name=name)
    if within is not None:
        client().set_tag(run_id, PARENT_TAG, within.run_id)
    describe_run(run_id, parameters, spec)
    contenders = [Contender.TEACHER, Contender.STUDENT, Contender.TWIN]
    if parameters.plan.unprivileged:
        contenders.append(Contender.UNPRIVILEGED)
    if parameters.plan.recipe.distillation.transfer:
        contenders.append(Contender.UNTAUGHT)
    names = {contender.value: f"{parameters.task} {contender.label}" for contender in contenders}
    children = child_runs(experiment_id, run_id, key, names)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children=children)


def retrain_key(parameters: RetrainParameters, spec: DatasetSpec, files: list[Path]) -> str:
    """The key of a retrain, from its parameters, spec, data and code."""
    return work_key(FLOW, parameters, spec, files)


@contextmanager
def tracked_retrain(
    parameters: RetrainParameters,
    spec: DatasetSpec,
    files: list[Path],
    *,
    within: RunManifest | None = None,
    called: str = "",
) -> Iterator[RunManifest]:
    """One retrain's MLflow runs, possibly within those of a backtest or an ablation: FINISHED or FAILED when the block
    ends. `called` is what distinguishes it from the others there.

    Raises BusyError where another process does the same work.
    """
    key = retrain_key(parameters, spec, files)
    with opened_alone(key, lambda: open_run(key, parameters, spec, within, called)) as run:
        yield run


def finished_retrain(
    parameters: RetrainParameters, spec: DatasetSpec, files: list[Path], within: RunManifest
) -> str | None:
    """The MLflow run of a finished retrain within a backtest or an ablation, or None."""
    return finished_run(within.experiment_id, retrain_key(parameters, spec, files), stage=STAGE)


def finished_verdict(parameters: RetrainParameters, spec: DatasetSpec, files: list[Path]) -> Verdict | None:
    """The verdict of a finished retrain of these parameters, this data and code; None where there is none."""
    run_id = finished_run(experiment(parameters.task), retrain_key(parameters, spec, files), stage=STAGE)
    return None if run_id is None else Verdict.model_validate(read_json(logged_file(run_id, VERDICT)))


def logged_file(run_id: str, name: str) -> Path:
    """A file that a retrain has logged, at the top level of its artifacts."""
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name))
