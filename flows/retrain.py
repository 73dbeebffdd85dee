"""Retrain one forecaster: from raw readings to a registered model and a verdict."""

from pathlib import Path
from typing import NamedTuple

from prefect import flow

from flows.commit import git_commit
from flows.naming import task_of_run
from schemas.manifests import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RunManifest,
    TrainedManifest,
    ValidatedManifest,
)
from schemas.parameters import RetrainParameters
from schemas.verdict import Verdict
from tasks.clock import at_its_time
from tasks.evaluate import evaluate
from tasks.features import build_features
from tasks.home import datasets_folder
from tasks.ingest import ingest
from tasks.publish import publish_quality
from tasks.refit import refit
from tasks.register import register
from tasks.report import report
from tasks.student import distil_student
from tasks.teacher import train_teacher
from tasks.tracking import tracked
from tasks.validate import validate
from tutelage.dataset import DatasetSpec, load_dataset_spec, source_files


class Judged(NamedTuple):
    """What the stages up to the verdict have made."""

    readings: ReadingsManifest
    validated: ValidatedManifest
    features: FeaturesManifest
    teacher: TrainedManifest
    students: TrainedManifest
    evaluation: EvaluationManifest


def judge(
    files: list[Path], spec: DatasetSpec, parameters: RetrainParameters, run: RunManifest, *, meet_champion: bool = True
) -> Judged:
    """From raw readings to the figures of teacher, student and twin on the test part: what a backtest does often."""
    recipe, seed, device = parameters.recipe, parameters.seed, parameters.device
    readings = ingest(files, spec, parameters.as_of)
    validated = validate(readings, spec)
    publish_quality(validated, spec)
    features = build_features(
        validated,
        spec,
        horizon_hours=parameters.horizon_hours,
        lookback_hours=parameters.lookback_hours,
        history_days=parameters.history_days,
        validation_share=parameters.validation_share,
        test_days=parameters.test_days,
        bins=recipe.bins,
    )
    teacher = train_teacher(features, spec, recipe, run, seed=seed, device=device)
    control = None
    if parameters.control_recipe is not None:
        control = train_teacher(
            features, spec, parameters.control_recipe, run, seed=seed, device=device, role="control"
        )
    students = distil_student(
        features, spec, teacher, control, recipe, run, seed=seed, pairs=parameters.pairs, device=device
    )
    evaluation = evaluate(readings, features, spec, teacher, students, run, seed=seed, meet_champion=meet_champion)
    return Judged(readings, validated, features, teacher, students, evaluation)


@flow(name="retrain", flow_run_name=lambda: f"retrain {task_of_run(RetrainParameters)}")
def retrain(parameters: RetrainParameters) -> Verdict:
    """Retrain a forecaster with a privileged teacher, and say whether that was worth it.

    Finished stages come from cache, training goes on from its checkpoint, and an interrupted retrain continues its
    MLflow run when it is started again with the same parameters.
    """
    parameters = at_its_time(parameters)
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    files = source_files(spec.source)
    with tracked(parameters, spec, files, git_commit()) as run:
        readings, validated, features, teacher, students, evaluation = judge(files, spec, parameters, run)
        refitted = None
        if parameters.refit:
            recipe, seed, device = parameters.recipe, parameters.seed, parameters.device
            refitted = refit(
                readings, features, spec, teacher, students, evaluation, recipe, run, seed=seed, device=device
            )
        registered = register(readings, validated, features, spec, students, evaluation, refitted, parameters, run)
        return report(readings, validated, features, evaluation, refitted, registered, run, seed=parameters.seed)
