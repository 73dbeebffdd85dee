"""The pieces of a backtest and of a study, which workers of a cluster can import and run."""

import datetime as dt
from pathlib import Path
from typing import NamedTuple

from prefect import get_run_logger

from flows.retrain import train_and_evaluate
from schemas.backtest import BacktestParameters
from schemas.manifests import RunManifest
from schemas.retrain import Evaluation, ValidatedManifest
from schemas.study import FoldScores, FoldSpan, StudyParameters
from tasks.backtest.run import finished_evaluation
from tasks.retrain.features import build_features
from tasks.retrain.run import tracked_retrain
from tasks.study.labels import label_fold
from tasks.study.scores import score_students
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.recipe import Recipe, TrainingPlan, student_part
from tutelage.errors import GapsError
from tutelage.judge.trials import Trial, group_trials


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
    origin, label = parameters.ending(period_end), f"{period_end:%Y-%m-%d %H:%M} UTC"
    finished = finished_evaluation(origin, spec, files, run)
    if finished is not None:
        get_run_logger().info("the period up to %s is evaluated already", label)
        return finished
    try:
        with tracked_retrain(origin, spec, files, within=run) as origin_run:
            stages = train_and_evaluate(files, spec, origin, origin_run, meets_champion=False)
    except GapsError as error:
        get_run_logger().warning("the period up to %s is left out: %s", label, error)
        return str(error)
    return stages.evaluated.evaluation


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
