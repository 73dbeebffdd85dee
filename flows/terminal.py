"""Flows called from a terminal: parameters as `name=value`, and an error as one sentence."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from schemas.verdict import Verdict
from tutelage.contract import faults_sentence
from tutelage.errors import SpecError, TutelageError
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES

Given = TypeVar("Given", bound=BaseModel)

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def given_parameters(arguments: list[str], kind: type[Given]) -> Given:
    """The parameters of a flow, of this kind, from texts such as `dataset=household` and `horizon_hours=24`.

    Raises SpecError where a text is no such pair, or a parameter can't have its value.
    """
    pairs = dict(argument.partition("=")[::2] for argument in arguments)
    empty = [name for name, value in pairs.items() if not value]
    if empty:
        raise SpecError(f"{empty[0]}: give it a value, such as dataset=household")
    values = {name: None if value == "none" else value for name, value in pairs.items()}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SpecError(faults_sentence(error, "parameters")) from error


def _without_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback from a record about an error that is a sentence."""
    if record.exc_info and isinstance(record.exc_info[1], TutelageError):
        record.msg, record.args = "stopped: %s", (str(record.exc_info[1]),)
        record.exc_info = None
    return True


def verdict_table(verdict: Verdict) -> str:
    """The scores of one verdict as text: means over replicates, and of the simple forecasts the best."""
    evaluation = verdict.evaluation
    shown = {evaluation.floor.baseline, Contender.SEASONAL_NAIVE_24H}
    head = f"{verdict.task:<24}{'CRPS':>8}{'MAE':>8}{'RMSE':>8}{'80 %':>8}   [{verdict.unit}; 80 %: share inside]"
    rows = []
    for name, s in evaluation.scores.items():
        if name in BASELINES and name not in shown:
            continue
        label = f"chosen {verdict.registered.source.label}" if name is Contender.CHOSEN else name.label
        rows.append(f"  {label:<22}{s.crps:>8.4f}{s.mae:>8.4f}{s.rmse:>8.4f}{s.coverage_80:>8.1%}")
    return "\n".join([head, *rows])


@contextmanager
def sentences() -> Iterator[None]:
    """Show a fault of input or configuration as its sentence, without the tracebacks of what called it."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_without_traceback)
    try:
        yield
    except TutelageError as error:
        print(f"\n{error}", file=sys.stderr)
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(_without_traceback)
