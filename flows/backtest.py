"""Backtest: retrain a forecaster at several origins in the past, and evaluate it on the period after each."""

import datetime as dt

from prefect import flow

from flows.naming import task_of_run
from flows.pieces import Origin, end_of_data, evaluate_origin
from runtime.clock import at_its_time
from runtime.engine import each_of
from runtime.paths import datasets_folder
from runtime.weights import with_its_weights
from schemas.backtest import BacktestManifest, BacktestParameters
from schemas.retrain import Evaluation
from tasks.backtest.summary import summarise_backtest
from tasks.fetch import fetch
from tasks.parent import tracked_parent
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
    parameters = with_its_weights(at_its_time(parameters))
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    files = fetch(spec)
    evaluations: dict[dt.datetime, Evaluation] = {}
    left_out: dict[dt.datetime, str] = {}
    end = end_of_data(files, spec, parameters)
    with tracked_parent("backtest", parameters, spec, files) as run:
        ends = period_ends(end, origins=parameters.origins, period_days=parameters.period_days)
        pieces = [Origin(period_end, files, spec, parameters, run) for period_end in ends]
        results = each_of(evaluate_origin, pieces, parameters.engine, name="origin", device=parameters.device)
        for period_end, result in zip(ends, results, strict=True):
            if isinstance(result, str):
                left_out[period_end] = result
            else:
                evaluations[period_end] = result
        if not evaluations:
            raise GapsError(f"no origin has a history that can be learnt from; at the last one {left_out[end]}")
        return summarise_backtest(evaluations, left_out, spec, parameters, run)
