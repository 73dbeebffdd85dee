"""Labels of a fold and the students that learn from them."""

import numpy as np
import pytest
import torch

from runtime.artifacts import STATES, read_dataset, read_labels, read_states
from runtime.caching import checkpoint_in
from schemas.retrain import FeaturesManifest
from schemas.study import LabelsManifest
from tasks.study.labels import label_fold
from tasks.study.scores import score_students
from tests.runtime.builders import serverless
from tests.tutelage.builders import small_recipe
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.recipe import Recipe, TrainingPlan, Views, student_part, teacher_part
from tutelage.distil.soft_labels import mean_labels
from tutelage.files import file_digest
from tutelage.judge.study import labels_crps

CPU = torch.device("cpu")
BASE = small_recipe(bins=8, gate="none")
PLAN = TrainingPlan(recipe=BASE, device="cpu")


def label(features: FeaturesManifest, spec: DatasetSpec, recipe: Recipe, *, states: bool = False) -> LabelsManifest:
    with serverless():
        return label_fold.fn(features, spec, PLAN.with_recipe(teacher_part(recipe)), hidden_states=states)


@pytest.fixture(scope="module")
def labels(features: FeaturesManifest, spec: DatasetSpec) -> LabelsManifest:
    return label(features, spec, BASE)


@pytest.fixture(scope="module")
def blind(features: FeaturesManifest, spec: DatasetSpec) -> LabelsManifest:
    """The labels of teachers that don't see the future, with hidden states."""
    views = Views(future_sigma=None, minutes_hours=1)
    return label(features, spec, BASE.override({"teacher.views": views}), states=True)


def test_label_fold__says_how_good_the_teachers_are(
    labels: LabelsManifest, blind: LabelsManifest, features: FeaturesManifest, spec: DatasetSpec
) -> None:
    dataset = read_dataset(features, spec, PLAN)
    test = read_labels(labels.folder, CPU).test
    assert torch.equal(test.origins, dataset.test)
    assert labels.teacher_crps == pytest.approx(labels_crps(test, dataset))
    assert labels.digest == file_digest(labels.folder / "soft_labels.safetensors")
    assert labels.folder.parent.name == "labels"
    assert blind.digest != labels.digest
    assert not checkpoint_in(labels.folder, "teacher").parent.exists()


def test_label_fold__writes_hidden_states_only_where_asked_for(
    labels: LabelsManifest, blind: LabelsManifest, features: FeaturesManifest, spec: DatasetSpec
) -> None:
    assert not (labels.folder / STATES).exists()
    states = read_states(blind.folder, CPU)
    assert states is not None
    assert states.hidden.shape[:2] == (1, len(read_dataset(features, spec, PLAN).taught()))


def score(
    features: FeaturesManifest,
    spec: DatasetSpec,
    labels: list[LabelsManifest],
    *alphas: float,
    seeds: list[int],
) -> list[list[float]]:
    recipes = [student_part(BASE.override({"distillation.alpha": alpha})) for alpha in alphas]
    return score_students.fn(features, spec, labels, recipes, PLAN.with_recipe(Recipe()), seeds=seeds).crps


def test_score_students__is_one_crps_for_each_recipe_and_seed(
    labels: LabelsManifest, features: FeaturesManifest, spec: DatasetSpec
) -> None:
    crps = score(features, spec, [labels], 0.5, 1.0, seeds=[0, 1])
    assert [len(row) for row in crps] == [2, 2]
    assert len({value for row in crps for value in row}) == 4
    assert all(0 < value < 10 for row in crps for value in row)


def test_score_students__twins_need_no_labels(features: FeaturesManifest, spec: DatasetSpec) -> None:
    [first, second], *_ = score(features, spec, [], 0.0, seeds=[0, 1])
    assert first != second
    assert score(features, spec, [], 0.0, seeds=[0])[0] == pytest.approx([first], rel=1e-4)
    with pytest.raises(ValueError, match="without soft labels"):
        score(features, spec, [], 0.5, seeds=[0])


def test_score_students__of_several_teachers_learn_from_the_mean(
    labels: LabelsManifest, blind: LabelsManifest, features: FeaturesManifest, spec: DatasetSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given: list[dict[str, object]] = []

    def learn(*args: object, **named: object) -> np.ndarray:
        given.append(named)
        return np.array([[1.0]])

    monkeypatch.setattr("tasks.study.scores.score_group", learn)
    score(features, spec, [labels, blind], 0.5, seeds=[0])
    both = [read_labels(each.folder, CPU).taught for each in (labels, blind)]
    soft = given[0]["soft"]
    assert torch.equal(soft.log_probabilities, mean_labels(both).log_probabilities)
    assert torch.equal(given[0]["states"].hidden, read_states(blind.folder, CPU).hidden), "those that there are"
