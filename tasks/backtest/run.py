"""A backtest's MLflow run, the parent of its origins' runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.runs import continued_run, describe_run, experiment, opened_alone, work_key
from runtime.stage import stage
from schemas.backtest import BacktestParameters
from schemas.manifests import RunManifest
from tutelage.data.dataset import DatasetSpec

FLOW = "flows.backtest"


@stage("open backtest", run_name="run {parameters.task}")
def open_backtest(key: str, parameters: BacktestParameters, spec: DatasetSpec) -> RunManifest:
    """Continue this backtest's unfinished MLflow run, or start one, in the experiment of the task's backtests."""
    experiment_id, name = experiment(f"{parameters.task}-backtest"), f"backtest seed {parameters.seed}"
    run_id = continued_run(experiment_id, key, stage="backtest", name=name)
    describe_run(run_id, parameters, spec)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children={})


@contextmanager
def tracked_backtest(parameters: BacktestParameters, spec: DatasetSpec, files: list[Path]) -> Iterator[RunManifest]:
    """One backtest's MLflow run: FINISHED or FAILED when the block ends.

    Raises BusyError where another process does the same work.
    """
    key = work_key(FLOW, parameters, spec, files)
    with opened_alone(key, lambda: open_backtest(key, parameters, spec)) as run:
        yield run
