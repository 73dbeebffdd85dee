"""The pieces of a backtest, an ablation and a study, which workers of a cluster can import and run."""

import datetime as dt
from pathlib import Path
from typing import NamedTuple

from prefect import get_run_logger

from flows.retrain import retrain_once, train_and_evaluate
from runtime.artifacts import EVALUATION, LOSSES, read_evaluation, read_losses
from runtime.paths import datasets_folder
from schemas.backtest import BacktestParameters
from schemas.fleet import FleetRow
from schemas.manifests import RunManifest
from schemas.parameters import DatedParameters
from schemas.retrain import Evaluation, RetrainParameters, ValidatedManifest
from schemas.study import FoldScores, FoldSpan, StudyParameters
from tasks.fetch import fetch
from tasks.retrain.features import build_features
from tasks.retrain.ingest import ingest
from tasks.retrain.run import finished_retrain, finished_verdict, logged_file, tracked_retrain
from tasks.study.labels import label_fold
from tasks.study.scores import score_students
from tutelage.data.dataset import DatasetSpec, load_dataset_spec
from tutelage.distil.recipe import Recipe, TrainingPlan, student_part
from tutelage.errors import GapsError, TutelageError
from tutelage.judge.comparison import Losses
from tutelage.judge.trials import Trial, group_trials


def end_of_data(files: list[Path], spec: DatasetSpec, parameters: DatedParameters) -> dt.datetime:
    """The end, UTC, of the last step that these parameters let a flow see."""
    end = parameters.as_of
    if end is None:
        end = ingest(files, spec, None, spec.ahead_hours(parameters.horizon_hours)).last_utc + spec.student_step
    return spec.grid.floor(end)


def evaluate_within(
    parameters: RetrainParameters, spec: DatasetSpec, files: list[Path], run: RunManifest, *, called: str
) -> str:
    """The MLflow run, within another, of a retrain up to its evaluation; where it is finished nothing is done again.

    Raises GapsError where the history has too many gaps.
    """
    finished = finished_retrain(parameters, spec, files, run)
    if finished is not None:
        get_run_logger().info("%s is evaluated already", called)
        return finished
    with tracked_retrain(parameters, spec, files, within=run, called=called) as piece_run:
        train_and_evaluate(files, spec, parameters, piece_run, meets_champion=False)
    return piece_run.run_id


class Origin(NamedTuple):
    """One period of a backtest, by its end, UTC."""

    period_end: dt.datetime
    files: list[Path]
    spec: DatasetSpec
    parameters: BacktestParameters
    run: RunManifest


def evaluate_origin(piece: Origin) -> Evaluation | str:
    """The evaluation on a period of a retrain on the data before it; a sentence where it has to be left out."""
    period_end, files, spec, parameters, run = piece
    try:
        until = f"until {period_end:%Y-%m-%d}"
        run_id = evaluate_within(parameters.ending(period_end), spec, files, run, called=until)
    except GapsError as error:
        get_run_logger().warning("the period up to %s UTC is left out: %s", f"{period_end:%Y-%m-%d %H:%M}", error)
        return str(error)
    return read_evaluation(logged_file(run_id, EVALUATION))


class Variant(NamedTuple):
    """One retrain of an ablation: its name, and its parameters."""

    name: str
    parameters: RetrainParameters
    files: list[Path]
    spec: DatasetSpec
    run: RunManifest


def evaluate_variant(piece: Variant) -> Losses | str:
    """The losses on the test part of a variant; a sentence where it has to be left out."""
    name, parameters, files, spec, run = piece
    try:
        run_id = evaluate_within(parameters, spec, files, run, called=name)
    except GapsError as error:
        get_run_logger().warning("%s is left out: %s", name, error)
        return str(error)
    return read_losses(logged_file(run_id, LOSSES))


def retrain_member(piece: RetrainParameters) -> FleetRow:
    """Retrain one dataset's forecaster, unless that is done already; a fault is its row, and stops no other."""
    try:
        spec = load_dataset_spec(datasets_folder() / f"{piece.dataset}.yaml")
        files = fetch(spec)
        finished = finished_verdict(piece, spec, files)
        verdict = finished or retrain_once(piece, spec, files)
    except TutelageError as error:
        get_run_logger().warning("%s: %s", piece.task, error)
        return FleetRow(task=piece.task, sentence=str(error))
    except Exception as error:  # a server, the disk, the device: whatever it is, the others are still to be retrained
        get_run_logger().exception("%s", piece.task)
        return FleetRow(task=piece.task, sentence=f"{type(error).__name__}: {error}")
    registered = verdict.registered
    return FleetRow(task=piece.task, version=registered.version, alias=registered.alias, sentence=verdict.sentence)


class Fold(NamedTuple):
    """One fold of a study."""

    span: FoldSpan
    validated: ValidatedManifest
    spec: DatasetSpec
    trials: list[Trial]
    parameters: StudyParameters


def score_fold(piece: Fold) -> FoldScores:
    """Score all trials on one fold: label with each teacher once, and train each group of students side by side."""
    fold, validated, spec, trials, parameters = piece
    plan = TrainingPlan(recipe=parameters.recipe, seed=parameters.seed, device=parameters.device)
    features = build_features(
        validated,
        spec,
        horizon_hours=parameters.horizon_hours,
        lookback_hours=parameters.lookback_hours,
        history_days=fold.learn_days,
        validation_share=parameters.validation_share,
        test_days=parameters.score_days,
        bins=plan.recipe.distillation.bins,
        end=fold.end_utc,
    )
    hidden_states = plan.recipe.distillation.terms.needs_hidden_states
    labels = {
        teacher: label_fold(features, spec, plan.with_recipe(teacher), hidden_states=hidden_states)
        for teacher in dict.fromkeys(teacher for trial in trials for teacher in trial.teachers)
    }
    crps: dict[str, list[float]] = {}
    for group in group_trials(trials):
        scored = score_students(
            features,
            spec,
            [labels[teacher] for teacher in group.teachers],
            [student_part(trial.recipe) for trial in group.trials],
            plan.with_recipe(Recipe()),
            seeds=[parameters.seed + number for number in range(parameters.seeds)],
        )
        crps |= {trial.name: by_seed for trial, by_seed in zip(group.trials, scored.crps, strict=True)}
    singles = {trial.name: labels[trial.teachers[0]].teacher_crps for trial in trials if trial.kind == "single"}
    return FoldScores(fold=fold, crps=crps, teacher_crps=singles)
