"""The MLflow run of a backtest or an ablation: the parent of the runs of its retrains."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from runtime.runs import continued_run, describe_run, experiment, opened_alone, work_key
from runtime.stage import stage
from schemas.manifests import RunManifest
from schemas.training import TrainingParameters
from tutelage.data.dataset import DatasetSpec

Kind = Literal["backtest", "ablation"]
"""Of work that consists of retrains; its flow has this name, too."""


@stage("open parent run", run_name="{kind} {parameters.task}")
def open_parent(key: str, kind: Kind, parameters: TrainingParameters, spec: DatasetSpec) -> RunManifest:
    """Continue this work's unfinished MLflow run, or start one, in the experiment of the task's work of this kind."""
    experiment_id, name = experiment(f"{parameters.task}-{kind}"), f"{kind} seed {parameters.seed}"
    run_id = continued_run(experiment_id, key, stage=kind, name=name)
    describe_run(run_id, parameters, spec)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children={})


@contextmanager
def tracked_parent(
    kind: Kind, parameters: TrainingParameters, spec: DatasetSpec, files: list[Path]
) -> Iterator[RunManifest]:
    """One such run: FINISHED or FAILED when the block ends.

    Raises BusyError where another process does the same work.
    """
    key = work_key(f"flows.{kind}", parameters, spec, files)
    with opened_alone(key, lambda: open_parent(key, kind, parameters, spec)) as run:
        yield run
