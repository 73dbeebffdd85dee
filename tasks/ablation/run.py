"""An ablation's MLflow run, the parent of its variants' runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.runs import continued_run, describe_run, experiment, opened_alone, work_key
from runtime.stage import stage
from schemas.ablation import AblationParameters
from schemas.manifests import RunManifest
from tutelage.data.dataset import DatasetSpec

FLOW = "flows.ablation"


@stage("open ablation", run_name="run {parameters.task}")
def open_ablation(key: str, parameters: AblationParameters, spec: DatasetSpec) -> RunManifest:
    """Continue this ablation's unfinished MLflow run, or start one, in the experiment of the task's ablations."""
    experiment_id, name = experiment(f"{parameters.task}-ablation"), f"ablation seed {parameters.seed}"
    run_id = continued_run(experiment_id, key, stage="ablation", name=name)
    describe_run(run_id, parameters, spec)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children={})


@contextmanager
def tracked_ablation(parameters: AblationParameters, spec: DatasetSpec, files: list[Path]) -> Iterator[RunManifest]:
    """One ablation's MLflow run: FINISHED or FAILED when the block ends.

    Raises BusyError where another process does the same work.
    """
    key = work_key(FLOW, parameters, spec, files)
    with opened_alone(key, lambda: open_ablation(key, parameters, spec)) as run:
        yield run
