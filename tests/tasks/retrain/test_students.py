import numpy as np
import pytest
import torch

import tasks.retrain.students
from runtime.artifacts import EXPORT, read_base, read_dataset, read_gate, read_held_out, read_history
from runtime.caching import checkpoint_in, stage_folder
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest, RetrainParameters, TrainedManifest
from tasks.retrain.students import distil_all_students
from tests.tasks.builders import steps_of
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.base import forecast_with_base
from tutelage.distil.teachers import forecast_exported
from tutelage.forecasts import Contender
from tutelage.judge.verdict import choose
from tutelage.model.inference import load_student
from tutelage.model.weights import load_network

CPU = torch.device("cpu")
NAMES = ["student", "twin", "unprivileged"]


def test_students__are_one_network_for_each_contender(students: TrainedManifest, parameters: RetrainParameters) -> None:
    assert sorted(students.best_epoch) == sorted(students.best_validation_loss) == NAMES
    networks = {name: load_network(students.folder / name, CPU) for name in NAMES}
    assert [network.members for network in networks.values()] == [parameters.replicates] * 3
    weights = [next(network.parameters()).detach() for network in networks.values()]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_students__the_first_replicate_of_what_is_chosen_is_exported(
    students: TrainedManifest, features: FeaturesManifest, spec: DatasetSpec, parameters: RetrainParameters
) -> None:
    dataset = read_dataset(features, spec, parameters.plan)
    chosen = choose(read_held_out(students.folder))
    exported = load_student(students.folder / EXPORT)
    assert exported.trained_until == features.validation.end_utc
    base = read_base(students.folder / chosen)
    assert base is not None
    assert (exported.card["complete_hours"], exported.card["horizon_hours"]) == (6, 2)
    assert exported.card["lookback_hours"] == base.lookback(6)
    first, *_ = forecast_with_base(load_network(students.folder / chosen, CPU), dataset, dataset.test, base)
    of_graph = forecast_exported(exported, dataset, dataset.test)
    np.testing.assert_allclose(of_graph.quantiles, first.quantiles, rtol=1e-3, atol=1e-3)


def test_students__each_contenders_history_is_its_own(students: TrainedManifest, run: RunManifest) -> None:
    history = read_history(students)
    assert sorted(history) == NAMES
    assert history[Contender.STUDENT] != history[Contender.TWIN] != history[Contender.UNPRIVILEGED]
    for name in NAMES:
        assert steps_of(run.children[name], "train") == list(range(1, students.epochs + 1))
        assert students.best_validation_loss[name] <= min(row["validation"] for row in history[Contender(name)])


def test_students__the_gate_is_written_by_hour(students: TrainedManifest) -> None:
    gate = read_gate(students.folder)
    assert gate is not None
    assert len(gate) == 2
    assert all(0 <= hour <= 1 for hour in gate)


def test_students__the_folder_is_that_of_the_inputs(
    students: TrainedManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    unprivileged: TrainedManifest,
    parameters: RetrainParameters,
) -> None:
    inputs = {"features": features, "spec": spec, "teachers": teachers, "unprivileged": unprivileged}
    module, plan = "tasks.retrain.students", parameters.plan
    assert students.folder == stage_folder("students", module, **inputs, plan=plan)
    others = [
        stage_folder("students", module, **inputs, plan=plan.model_copy(update={"replicates": 3})),
        stage_folder("students", module, **inputs | {"unprivileged": None}, plan=plan),
        stage_folder("students", module, **inputs | {"teachers": unprivileged}, plan=plan),
    ]
    assert len({students.folder, *others}) == 4
    assert not checkpoint_in(students.folder, "students").parent.exists()


def test_students__without_gate_and_unprivileged_labels(
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    parameters: RetrainParameters,
    run: RunManifest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks.retrain.students, "export_student", lambda network, bins, card, folder, *, base: None)
    plan = parameters.plan.with_recipe(parameters.recipe.override({"distillation.gate": "none"}))
    plain = distil_all_students.fn(features, spec, teachers, None, plan.model_copy(update={"replicates": 1}), run)
    assert sorted(plain.best_epoch) == ["student", "twin"]
    assert read_gate(plain.folder) is None
    assert load_network(plain.folder / "twin", CPU).members == 1
    # A twin learns nothing from labels or gate, so the first of two is the one of one.
    first = next(load_network(students.folder / "twin", CPU).parameters())[0]
    torch.testing.assert_close(next(load_network(plain.folder / "twin", CPU).parameters())[0], first)
