"""Retrain one forecaster: from raw readings to a registered model and a verdict.

Run it once with `make retrain DATASET=household HORIZON=24`.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from prefect import flow, get_run_logger

from flows.naming import task_of_run
from flows.terminal import given_parameters, sentences, verdict_table
from runtime.clock import at_its_time
from runtime.paths import datasets_folder, home
from runtime.weights import with_its_weights
from schemas.manifests import RunManifest
from schemas.retrain import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RetrainParameters,
    TrainedManifest,
    ValidatedManifest,
)
from schemas.verdict import Verdict
from tasks.fetch import fetch
from tasks.retrain.champion import fetch_champion
from tasks.retrain.evaluate import evaluate
from tasks.retrain.features import build_features
from tasks.retrain.ingest import ingest
from tasks.retrain.quality import publish_quality
from tasks.retrain.record import record_run
from tasks.retrain.refit import refit
from tasks.retrain.register import register
from tasks.retrain.report import report
from tasks.retrain.run import tracked_retrain
from tasks.retrain.students import distil_all_students
from tasks.retrain.teachers import train_all_teachers
from tasks.retrain.validate import validate
from tutelage.data.dataset import DatasetSpec, Role, load_dataset_spec
from tutelage.distil.dataset import require_recursive_columns, require_steps
from tutelage.distil.recipe import TrainingPlan
from tutelage.forecasts import Contender


class Evaluated(NamedTuple):
    """The files that were read, by dataset, the stages' manifests up to the evaluation, and the trainings' plan."""

    files: dict[str, list[Path]]
    readings: ReadingsManifest
    validated: ValidatedManifest
    features: FeaturesManifest
    teachers: TrainedManifest
    students: TrainedManifest
    evaluated: EvaluationManifest
    plan: TrainingPlan


def train_and_evaluate(
    files: list[Path],
    spec: DatasetSpec,
    parameters: RetrainParameters,
    run: RunManifest,
    *,
    meets_champion: bool = True,
) -> Evaluated:
    """From raw readings to the evaluation on the test part; backtests run this part of a retrain, too."""
    plan = parameters.plan
    require_recursive_columns(plan.recipe, len(spec.names(Role.OBSERVED)))
    require_steps(
        plan.recipe, spec.grid, horizon_hours=parameters.horizon_hours, lookback_hours=parameters.lookback_hours
    )
    readings = ingest(files, spec, parameters.as_of, spec.ahead_hours(parameters.horizon_hours))
    validated = validate(readings, spec)
    publish_quality(validated, spec)
    others, others_spec, read = None, None, {spec.name: files}
    if plan.recipe.teacher.other_sites is not None:
        others_spec = load_dataset_spec(datasets_folder() / f"{plan.recipe.teacher.other_sites}.yaml")
        read[others_spec.name] = fetch(others_spec)
        ahead_hours = others_spec.ahead_hours(parameters.horizon_hours)
        others = validate(ingest(read[others_spec.name], others_spec, parameters.as_of, ahead_hours), others_spec)
    features = features_for(parameters, validated, spec, others, others_spec)
    plan = with_views_there(plan, features)
    teachers = train_all_teachers(features, spec, plan.of_teachers, run, role=Contender.TEACHER)
    unprivileged = None
    if plan.unprivileged:
        of_unprivileged = plan.of_unprivileged_teachers
        unprivileged = train_all_teachers(features, spec, of_unprivileged, run, role=Contender.UNPRIVILEGED)
    students = distil_all_students(features, spec, teachers, unprivileged, plan, run)
    evaluated = evaluate(readings, features, spec, teachers, students, plan, run, meets_champion=meets_champion)
    return Evaluated(read, readings, validated, features, teachers, students, evaluated, plan)


def features_for(
    parameters: RetrainParameters,
    validated: ValidatedManifest,
    spec: DatasetSpec,
    others: ValidatedManifest | None = None,
    others_spec: DatasetSpec | None = None,
) -> FeaturesManifest:
    """The features stage with the history that a retrain's parameters ask for."""
    return build_features(
        validated,
        spec,
        horizon_hours=parameters.horizon_hours,
        lookback_hours=parameters.lookback_hours,
        history_days=parameters.history_days,
        validation_share=parameters.validation_share,
        test_days=parameters.test_days,
        bins=parameters.recipe.distillation.bins,
        others=others,
        others_spec=others_spec,
    )


def with_views_there(plan: TrainingPlan, features: FeaturesManifest) -> TrainingPlan:
    """The plan without the teachers' views of which the history has no data; the run's log names them."""
    there = plan.with_recipe(features.with_views_there(plan.recipe))
    if there != plan:
        seen = "; ".join(views.sentence for views in there.recipe.teacher.every_view)
        get_run_logger().warning("views without data are left out; the teachers see: %s", seen)
    return there


def retrain_once(parameters: RetrainParameters, spec: DatasetSpec, files: list[Path]) -> Verdict:
    """A whole retrain, within its own MLflow run."""
    with tracked_retrain(parameters, spec, files) as run:
        fetch_champion(parameters.task, run)
        stages = train_and_evaluate(files, spec, parameters, run)
        read, readings, validated, features, teachers, students, evaluated, plan = stages
        refitted = None
        if parameters.refit:
            refitted = refit(readings, features, spec, teachers, students, evaluated, plan)
        record_run(read, readings, features, spec, teachers, students, refitted, parameters, run)
        registered = register(readings, validated, features, spec, students, evaluated, refitted, parameters, run)
        return report(readings, validated, features, evaluated, refitted, registered, run, seed=parameters.seed)


@flow(name="retrain", flow_run_name=lambda: f"retrain {task_of_run(RetrainParameters)}")
def retrain(parameters: RetrainParameters) -> Verdict:
    """Retrain a forecaster with a privileged teacher, and evaluate whether the privileged data were worth it.

    Finished stages come from the cache, training resumes from its checkpoint, and an interrupted retrain continues its
    MLflow run when it is started again with the same parameters.
    """
    parameters = with_its_weights(at_its_time(parameters))
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    return retrain_once(parameters, spec, fetch(spec))


def main(arguments: list[str]) -> int:
    """Retrain with the parameters that the arguments name, and print the verdict."""
    with sentences():
        verdict = retrain(given_parameters(arguments, RetrainParameters))
        print("", verdict_table(verdict), verdict.sentence, sep="\n")
        print(f"Report:  {home() / 'reports' / 'latest' / verdict.task / 'report.html'}")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
