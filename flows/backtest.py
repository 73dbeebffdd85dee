"""Backtest: how a forecaster would have fared, retrained at one origin of the past after the other."""

import datetime as dt

from prefect import flow, get_run_logger

from flows.commit import git_commit
from flows.naming import task_of_run
from flows.retrain import judge
from schemas.manifests import BacktestManifest
from schemas.parameters import BacktestParameters
from tasks.backtest import summarise_backtest, tracked_backtest
from tasks.clock import at_its_time
from tasks.home import datasets_folder
from tasks.ingest import ingest
from tasks.tracking import finished_figures, tracked, work_key
from tutelage.backtest import stretch_ends
from tutelage.dataset import load_dataset_spec, source_files
from tutelage.errors import GapsError
from tutelage.inputs import HOUR


@flow(name="backtest", flow_run_name=lambda: f"backtest {task_of_run(BacktestParameters)}")
def backtest(parameters: BacktestParameters) -> BacktestManifest:
    """Retrain at each origin on what was known then, and judge on the stretch after it; nothing is registered.

    An interrupted backtest goes on when it is started again with the same parameters: finished origins are read from
    MLflow, the one that was at work continues from its checkpoint. An origin whose history has too many gaps to learn
    from is left out, and the result says so.

    Raises GapsError where that is so at every origin.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    files, figures = source_files(spec.source), {}
    left_out: dict[dt.datetime, str] = {}
    end = parameters.as_of or _end(ingest(files, spec, None).last_utc)
    with tracked_backtest(parameters, spec, files, git_commit()) as run:
        for stop in stretch_ends(end, origins=parameters.origins, stretch_days=parameters.stretch_days):
            step = parameters.ending(stop)
            found = finished_figures(work_key(step, spec, files), run.experiment_id)
            if found is None:
                try:
                    with tracked(step, spec, files, git_commit(), within=run) as its_run:
                        judge(files, spec, step, its_run, meet_champion=False)
                except GapsError as error:
                    left_out[stop] = str(error)
                    get_run_logger().warning(
                        "the stretch up to %s is left out: %s", f"{stop:%Y-%m-%d %H:%M} UTC", error
                    )
                    continue
                found = finished_figures(work_key(step, spec, files), run.experiment_id)
            else:
                get_run_logger().info("the stretch up to %s is there already", f"{stop:%Y-%m-%d %H:%M} UTC")
            assert found is not None
            figures[stop] = found
        if not figures:
            raise GapsError(f"no origin has a history that can be learnt from; at the last one {left_out[end]}")
        return summarise_backtest(figures, left_out, spec, parameters, run)


def _end(last: dt.datetime) -> dt.datetime:
    """The end of the last full hour that begins by a reading's time."""
    return last.replace(minute=0, second=0, microsecond=0) + HOUR
