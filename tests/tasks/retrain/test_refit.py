import shutil

import numpy as np
import pytest

import tasks.retrain.refit
from runtime.artifacts import EXPORT
from runtime.caching import checkpoint_in
from schemas.retrain import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RetrainParameters,
    TrainedManifest,
)
from tasks.retrain.refit import refit
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import ExportError
from tutelage.files import file_digest, read_json
from tutelage.forecasts import Contender
from tutelage.model.inference import forecast_windows, load_student
from tutelage.model.weights import WEIGHTS


def test_refit__learns_from_all_parts(
    refitted: RefitManifest, features: FeaturesManifest, students: TrainedManifest, teachers: TrainedManifest
) -> None:
    parts = (features.train, features.validation, features.test)
    assert refitted.windows > sum(part.windows for part in parts), "also from the windows across two parts"
    assert (refitted.start_utc, refitted.end_utc) == (features.train.start_utc, features.test.end_utc)
    assert refitted.epochs == {"student": students.best_epoch["student"], "teacher": teachers.best_epoch["teacher"]}


def test_refit__exports_a_student_that_is_another(
    refitted: RefitManifest, features: FeaturesManifest, students: TrainedManifest
) -> None:
    again, before = load_student(refitted.folder / EXPORT), load_student(students.folder / EXPORT)
    assert again.trained_until == features.test.end_utc
    assert before.trained_until == features.validation.end_utc
    known = np.zeros((1, 2, 3))
    quantiles = [
        forecast_windows(student, np.full((1, student.card["lookback_hours"], 2), 7.0), known).quantiles
        for student in (again, before)
    ]
    assert not np.allclose(*quantiles)
    assert file_digest(refitted.folder / WEIGHTS) == refitted.digest
    assert read_json(refitted.folder / "network.json")["members"] == 1


def test_refit__is_checked_for_leaks_and_leaves_no_checkpoint(
    refitted: RefitManifest, evaluated: EvaluationManifest
) -> None:
    assert refitted.leak_checks == evaluated.evaluation.leak_check.checked
    assert not checkpoint_in(refitted.folder, "student").parent.exists()


@pytest.fixture(scope="module")
def twin_chosen(taught: EvaluationManifest) -> EvaluationManifest:
    """The evaluation with the twin as what is registered."""
    evaluation = taught.evaluation.model_copy(update={"chosen": Contender.TWIN})
    return taught.model_copy(update={"evaluation": evaluation})


def test_refit__of_a_twin_needs_no_teacher(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    twin_chosen: EvaluationManifest,
    refitted: RefitManifest,
    parameters: RetrainParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks.retrain.refit, "train_teachers", lambda *given, **named: pytest.fail("taught again"))
    plain = refit.fn(readings, features, spec, teachers, students, twin_chosen, parameters.plan)
    assert plain.epochs == {"student": students.best_epoch["twin"]}
    assert plain.folder != refitted.folder
    assert plain.digest != refitted.digest


def test_refit__a_graph_that_is_not_the_networks_is_refused(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    twin_chosen: EvaluationManifest,
    parameters: RetrainParameters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = students.folder / EXPORT
    monkeypatch.setattr(tasks.retrain.refit, "export_student", lambda *given, base: shutil.copytree(other, given[-1]))
    plan = parameters.plan.model_copy(update={"seed": 5})
    with pytest.raises(ExportError, match="the exported graph forecasts other values than the network"):
        refit.fn(readings, features, spec, teachers, students, twin_chosen, plan)
