from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.artifacts import EXPORT
from schemas.retrain import FeaturesManifest, ReadingsManifest, TrainedManifest
from tasks.retrain.leaks import check_exported
from tests.runtime.builders import exported_student
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import LeakError
from tutelage.model.inference import Student, load_student


class Session:
    """A graph that forecasts the mean of one column of its window."""

    def __init__(self, column: int) -> None:
        self.column = column

    def run(self, names: object, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        mean = inputs["observed"][:, :, self.column].mean(axis=1, keepdims=True).repeat(2, axis=1)
        return [mean, mean[..., None].repeat(99, axis=2)]


def seeing(student: Student, column: str) -> Student:
    """A student that sees a privileged column, too, and forecasts by one column."""
    columns = ["power_kw", "indoor_c", "voltage_v"]
    session: Any = Session(columns.index(column))
    return replace(student, session=session, card=student.card | {"observed": columns})


def test_check_exported__counts_what_it_has_changed(
    readings: ReadingsManifest, spec: DatasetSpec, features: FeaturesManifest, tmp_path: Path
) -> None:
    student = load_student(exported_student(tmp_path / "export"))
    single = check_exported(readings, spec, {"student": student}, features, seed=0)
    both = check_exported(readings, spec, {"student": student, "twin": student}, features, seed=0)
    assert single.passed
    assert single.checked >= 4 * 8
    assert both.checked == 2 * single.checked


def test_check_exported__names_the_student_that_sees_a_privileged_column(
    readings: ReadingsManifest, spec: DatasetSpec, features: FeaturesManifest, students: TrainedManifest
) -> None:
    honest = load_student(students.folder / "twin" / EXPORT)
    check_exported(readings, spec, {"twin": honest}, features, seed=0)
    with pytest.raises(LeakError, match="student: privileged column voltage_v changed: the forecast moves") as error:
        check_exported(readings, spec, {"twin": honest, "student": seeing(honest, "voltage_v")}, features, seed=0)
    assert "twin:" not in str(error.value)
