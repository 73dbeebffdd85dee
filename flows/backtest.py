"""Backtest: retrain a forecaster at several origins in the past, and evaluate it on the period after each."""

import datetime as dt

from prefect import flow, get_run_logger

from flows.naming import task_of_run
from flows.retrain import train_and_evaluate
from runtime.clock import at_its_time
from runtime.paths import datasets_folder
from schemas.backtest import BacktestManifest, BacktestParameters
from schemas.retrain import Evaluation
from tasks.backtest.run import finished_evaluation, tracked_backtest
from tasks.backtest.summary import summarise_backtest
from tasks.fetch import fetch
from tasks.retrain.ingest import ingest
from tasks.retrain.run import tracked_retrain
from tutelage.data.dataset import load_dataset_spec
from tutelage.errors import GapsError
from tutelage.judge.backtest import period_ends


@flow(name="backtest", flow_run_name=lambda: f"backtest {task_of_run(BacktestParameters)}")
def backtest(parameters: BacktestParameters) -> BacktestManifest:
    """Retrain at each origin on the data before it, and evaluate on the period after it; nothing is registered.

    An interrupted backtest continues when it is started again with the same parameters: evaluations of finished origins
    are read from MLflow, the interrupted one resumes from its checkpoint. An origin whose history has too many gaps is
    left out, and the result says so.

    Raises GapsError where every origin is left out.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    files = fetch(spec)
    evaluations: dict[dt.datetime, Evaluation] = {}
    left_out: dict[dt.datetime, str] = {}
    end = spec.grid.floor(parameters.as_of or ingest(files, spec, None).last_utc + spec.student_step)
    with tracked_backtest(parameters, spec, files) as run:
        for period_end in period_ends(end, origins=parameters.origins, period_days=parameters.period_days):
            origin = parameters.ending(period_end)
            finished = finished_evaluation(origin, spec, files, run)
            label = f"{period_end:%Y-%m-%d %H:%M} UTC"
            if finished is not None:
                get_run_logger().info("the period up to %s is evaluated already", label)
                evaluations[period_end] = finished
                continue
            try:
                with tracked_retrain(origin, spec, files, within=run) as origin_run:
                    stages = train_and_evaluate(files, spec, origin, origin_run, meets_champion=False)
            except GapsError as error:
                left_out[period_end] = str(error)
                get_run_logger().warning("the period up to %s is left out: %s", label, error)
                continue
            evaluations[period_end] = stages.evaluated.evaluation
        if not evaluations:
            raise GapsError(f"no origin has a history that can be learnt from; at the last one {left_out[end]}")
        return summarise_backtest(evaluations, left_out, spec, parameters, run)
