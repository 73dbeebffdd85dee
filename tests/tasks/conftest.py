"""One retrain of a made-up meter, stage by stage as plain functions, without Prefect; each stage runs once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.manifests import RunManifest
from schemas.retrain import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RegisteredManifest,
    RetrainParameters,
    TrainedManifest,
    ValidatedManifest,
)
from schemas.verdict import Verdict
from tasks.retrain.evaluate import evaluate
from tasks.retrain.features import build_features
from tasks.retrain.ingest import ingest
from tasks.retrain.refit import refit
from tasks.retrain.register import register
from tasks.retrain.report import report
from tasks.retrain.run import open_run, retrain_key
from tasks.retrain.students import distil_all_students
from tasks.retrain.teachers import train_all_teachers
from tasks.retrain.validate import validate
from tests.runtime.builders import Published, gain_of, register_old, serverless
from tests.tasks.builders import PARAMETERS
from tests.tutelage.data.builders import meter, random_readings, write_readings
from tutelage.data.dataset import DatasetSpec
from tutelage.forecasts import Contender
from tutelage.judge.comparison import Floor


@pytest.fixture(autouse=True)
def published() -> Iterator[Published]:
    """What a test's stages publish."""
    with serverless() as calls:
        yield calls


@pytest.fixture(scope="session")
def old_version() -> tuple[str, str]:
    """A refit version that the code before 0.2 registered: the model's name and the version."""
    return register_old()


@pytest.fixture(scope="session")
def meter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "meter.csv"
    write_readings(path, random_readings(meter(), days=24), meter())
    return path


@pytest.fixture(scope="session")
def spec(meter_file: Path) -> DatasetSpec:
    """The meter with 24 days of readings that are noise."""
    return meter(name=PARAMETERS.dataset, source__path=str(meter_file))


@pytest.fixture(scope="session")
def parameters() -> RetrainParameters:
    return PARAMETERS


@pytest.fixture(scope="session")
def run(spec: DatasetSpec, meter_file: Path, parameters: RetrainParameters) -> RunManifest:
    with serverless():
        return open_run.fn(retrain_key(parameters, spec, [meter_file]), parameters, spec, None)


@pytest.fixture(scope="session")
def readings(spec: DatasetSpec, meter_file: Path) -> ReadingsManifest:
    return ingest.fn([meter_file], spec, None)


@pytest.fixture(scope="session")
def validated(readings: ReadingsManifest, spec: DatasetSpec) -> ValidatedManifest:
    return validate.fn(readings, spec)


@pytest.fixture(scope="session")
def features(validated: ValidatedManifest, spec: DatasetSpec, parameters: RetrainParameters) -> FeaturesManifest:
    names = ("horizon_hours", "lookback_hours", "history_days", "validation_share", "test_days")
    values = {name: getattr(parameters, name) for name in names}
    return build_features.fn(validated, spec, bins=parameters.recipe.distillation.bins, **values)


@pytest.fixture(scope="session")
def teachers(
    features: FeaturesManifest, spec: DatasetSpec, parameters: RetrainParameters, run: RunManifest
) -> TrainedManifest:
    with serverless():
        return train_all_teachers.fn(features, spec, parameters.plan.of_teachers, run, role=Contender.TEACHER)


@pytest.fixture(scope="session")
def unprivileged(
    features: FeaturesManifest, spec: DatasetSpec, parameters: RetrainParameters, run: RunManifest
) -> TrainedManifest:
    with serverless():
        plan = parameters.plan.of_unprivileged_teachers
        return train_all_teachers.fn(features, spec, plan, run, role=Contender.UNPRIVILEGED)


@pytest.fixture(scope="session")
def students(
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    unprivileged: TrainedManifest,
    parameters: RetrainParameters,
    run: RunManifest,
) -> TrainedManifest:
    with serverless():
        return distil_all_students.fn(features, spec, teachers, unprivileged, parameters.plan, run)


@pytest.fixture(scope="session")
def evaluated(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    parameters: RetrainParameters,
    run: RunManifest,
) -> EvaluationManifest:
    with serverless():
        return evaluate.fn(readings, features, spec, teachers, students, parameters.plan, run)


@pytest.fixture(scope="session")
def taught(evaluated: EvaluationManifest) -> EvaluationManifest:
    """The evaluation with the student as the chosen one, and better than ridge, whatever the noise says."""
    changes = {"chosen": Contender.STUDENT, "floor": Floor(Contender.RIDGE, gain_of(0.05))}
    evaluation = evaluated.evaluation.model_copy(update=changes)
    return evaluated.model_copy(update={"evaluation": evaluation})


@pytest.fixture(scope="session")
def refitted(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    taught: EvaluationManifest,
    parameters: RetrainParameters,
) -> RefitManifest:
    with serverless():
        return refit.fn(readings, features, spec, teachers, students, taught, parameters.plan)


@pytest.fixture(scope="session")
def registered(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    students: TrainedManifest,
    taught: EvaluationManifest,
    refitted: RefitManifest,
    parameters: RetrainParameters,
    run: RunManifest,
) -> RegisteredManifest:
    """The first version of the meter's model: a refit student, the champion."""
    with serverless():
        return register.fn(readings, validated, features, spec, students, taught, refitted, parameters, run)


@pytest.fixture(scope="session")
def reported(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    taught: EvaluationManifest,
    refitted: RefitManifest,
    registered: RegisteredManifest,
    run: RunManifest,
) -> tuple[Verdict, Published]:
    """The verdict, and what its stage has published."""
    with serverless() as calls:
        verdict = report.fn(readings, validated, features, taught, refitted, registered, run, seed=0)
    return verdict, calls
