from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import dataset_of, random_labels, small_network, small_recipe, synthetic_panel
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.ensemble import ensemble_labels, ensemble_states, train_ensemble
from tutelage.distil.losses import categorical_distillation_loss
from tutelage.distil.objective import (
    distillation_loss,
    make_head_loss,
    make_objective,
    path_of,
    term_loss,
    truth_loss,
)
from tutelage.distil.plans import StudentPlan
from tutelage.distil.recipe import HIDDEN_STATE_TERMS, Terms
from tutelage.distil.soft_labels import SoftLabels
from tutelage.distil.students import train_students
from tutelage.model.architectures import Inverted, States
from tutelage.model.kinds import Architecture, Budget, Head
from tutelage.model.networks import Forecaster
from tutelage.model.training import Progress

EDGES, SCALE = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([2.0, 0.5])
NAMES = list(Terms.model_fields)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([200]), train_hours=130, horizon=4)


@pytest.fixture(scope="module")
def soft(dataset: WindowDataset) -> list[SoftLabels]:
    teacher, _ = train_ensemble(dataset, small_recipe(), seed=0)
    return [ensemble_labels(teacher, dataset, dataset.train, small_recipe(), seed=0)]


@cache
def states_of(dataset: WindowDataset, kind: Architecture) -> States:
    recipe = small_recipe(kind=kind)
    teacher, _ = train_ensemble(dataset, recipe, seed=0)
    return ensemble_states(teacher, dataset, dataset.train, recipe, seed=0)


def plan_of(name: str, weight: float = 5.0, **changes: object) -> StudentPlan:
    return StudentPlan.model_validate({"alpha": 0.5, "dropout": 0.2, "terms": Terms(**{name: weight})} | changes)


@pytest.mark.parametrize(
    ("head", "outputs", "expected"),
    [("categorical", [0.0, 0.0, 0.0], -2 / 3), ("point", [1.5], 1.5), ("quantiles", [1.5] + [0.0] * 18, 1.5)],
)
def test_path_of__is_the_standardised_mean(head: Head, outputs: list[float], expected: float) -> None:
    head_loss = make_head_loss(head, EDGES, SCALE, horizon=1, decay=1.0)
    # Uniform over the bins the mean is (½ + 1½ + 3) / 3 = 5/3, which is ⅔ of a standard deviation below 2.
    assert path_of(head_loss, torch.tensor([[[outputs]]])).item() == pytest.approx(expected)


@pytest.mark.parametrize("head", ["categorical", "point", "quantiles"])
def test_distillation_loss__each_hour_weighs_less_than_the_one_before(head: Head) -> None:
    width = {"categorical": 3, "point": 1, "quantiles": 19}[head]
    outputs = torch.randn(1, 5, 2, width, generator=torch.Generator().manual_seed(0))
    truth = torch.rand(5, 2, generator=torch.Generator().manual_seed(1)) * 4

    def loss(decay: float, hours: slice = slice(None)) -> float:
        there = outputs[:, :, hours]
        head_loss = make_head_loss(head, EDGES, SCALE, horizon=there.shape[2], decay=decay)
        value = distillation_loss(
            head_loss, there, there, truth[:, hours].contiguous(), alpha=torch.zeros(1), temperature=1.0, gate=None
        )
        if decay == 1:
            torch.testing.assert_close(value, truth_loss(head_loss, there, truth[:, hours].contiguous()))
        return value.item()

    expected = 0.8 * loss(1.0, slice(1)) + 0.2 * loss(1.0, slice(1, 2))
    assert loss(0.25) == pytest.approx(expected, rel=1e-5)


def test_distillation_loss__of_a_categorical_head_is_that_of_the_bins() -> None:
    outputs, teacher = (torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    alpha, head_loss = torch.tensor([0.9, 0.2]), make_head_loss("categorical", EDGES, SCALE, horizon=2, decay=1.0)
    truth = torch.full((5, 2), 1.5)  # the second bin
    loss = distillation_loss(head_loss, outputs, teacher, truth, alpha=alpha, temperature=2.0, gate=None)
    labels = torch.ones(5, 2, dtype=torch.int64)
    assert torch.equal(loss, categorical_distillation_loss(outputs, teacher, labels, alpha=alpha, temperature=2.0))


def test_term_loss__similarities_between_hours_golden() -> None:
    head_loss = make_head_loss("categorical", torch.tensor([0.0, 1.0, 2.0]), SCALE, horizon=2, decay=1.0)
    student = torch.tensor([[[[0.5, 0.5], [0.5, 0.5]]]]).log()
    teacher = torch.tensor([[[[0.9, 0.1], [0.1, 0.9]]]]).log()
    loss = term_loss(
        head_loss,
        {"times": torch.tensor([2.0])},
        outputs=student,
        labels=teacher,
        path=torch.zeros(1, 1, 2),
        states=States(torch.zeros(1, 1, 1)),
        teacher=None,
        projection=None,
    )
    # The student's hours are alike, 1; the teacher's are √0.09 + √0.09 = 0.6 alike. Two cells of four differ by 0.4.
    assert loss.item() == pytest.approx(2 * 2 / 4 * 0.4**2, rel=1e-5)


def test_term_loss__a_point_head_has_no_similarities_between_hours() -> None:
    head_loss = make_head_loss("point", EDGES, SCALE, horizon=2, decay=1.0)
    values = torch.zeros(1, 1, 2, 1)
    with pytest.raises(ValueError, match="'times' needs a head with more than one value per hour"):
        term_loss(
            head_loss,
            {"times": torch.ones(1)},
            outputs=values,
            labels=values,
            path=torch.zeros(1, 1, 2),
            states=States(torch.zeros(1, 1, 1)),
            teacher=None,
            projection=None,
        )


# What a term needs of both sides; the others are content with any network.
KINDS: dict[str, Architecture] = {"variables": "inverted", "attention": "inverted"}


@pytest.mark.parametrize("name", list(KINDS))
def test_term_loss__refuses_terms_that_its_network_has_nothing_for(
    dataset: WindowDataset, soft: list[SoftLabels], name: str
) -> None:
    with pytest.raises(ValueError, match=f"the term '{name}' needs {HIDDEN_STATE_TERMS[name]} of student and teacher"):
        train_students(dataset, soft, [plan_of(name)], small_recipe(), seed=0, states=states_of(dataset, "inverted"))


def test_make_objective__has_only_the_sets_that_teach_somebody(dataset: WindowDataset) -> None:
    sets = [random_labels(dataset, seed=seed) for seed in range(3)]
    plans = [StudentPlan(soft=2), StudentPlan(soft=0), StudentPlan(soft=2).twin]
    gate = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    objective = make_objective(dataset, sets, plans, small_recipe(), gate=gate, states=None)
    for place, expected in enumerate((sets[0], sets[2])):
        assert torch.equal(objective.labels[place], expected.log_probabilities)
    assert len(objective.labels) == len(objective.paths) == 2
    assert objective.gate is not None
    assert objective.gate[:, 0, 0].tolist() == pytest.approx([0.1, 0.3])
    assert objective.set_of.tolist() == [1, 0, 0]  # a twin learns from no set
    assert objective.alpha.tolist() == pytest.approx([0.9, 0.9, 0.0])


def test_make_objective__a_plan_has_its_labels_by_their_origins(dataset: WindowDataset) -> None:
    labels = random_labels(dataset)
    turned = SoftLabels(labels.origins.flip(0), labels.log_probabilities.flip(0))
    plans, network = [StudentPlan(alpha=1.0)], small_network(dataset, members=1).eval()
    first, second = (
        make_objective(dataset, [each], plans, small_recipe(), gate=None, states=None) for each in (labels, turned)
    )
    batch = dataset.train[[5, 0, 9]]
    assert torch.equal(first(network, batch), second(network, batch))
    outputs, rows = network(*dataset.student_inputs(batch)), labels.at(batch)[None]
    expected = categorical_distillation_loss(outputs, rows, dataset.labels(batch), alpha=torch.ones(1), temperature=1.0)
    torch.testing.assert_close(first(network, batch), expected)


def test_make_objective__refuses_a_window_without_soft_labels(dataset: WindowDataset) -> None:
    short = random_labels(dataset, dataset.train[2:])
    with pytest.raises(ValueError, match=r"^2 of 123 windows have no soft labels$"):
        make_objective(dataset, [short], [StudentPlan()], small_recipe(), gate=None, states=None)


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_validation_loss__does_not_depend_on_the_chunks(dataset: WindowDataset, head: Head) -> None:
    recipe = small_recipe(head=head)
    network = Forecaster(dataset.student_config(recipe), dataset.scalers, 2).eval()
    objective = make_objective(
        dataset, [random_labels(dataset)], [StudentPlan(), StudentPlan().twin], recipe, gate=None, states=None
    )
    with torch.no_grad():
        whole, parts = (objective.validation_loss(network, chunk=chunk) for chunk in (1024, 7))
        outputs = network(*dataset.student_inputs(dataset.validation))
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(whole, truth_loss(objective.head_loss, outputs, dataset.truth(dataset.validation)))


def first_weight(students: Forecaster) -> Tensor:
    """Of every member, the first thing that it does to its input."""
    architecture = students.architecture
    return architecture.of_past.weight if isinstance(architecture, Inverted) else architecture.first.weight


@pytest.mark.parametrize("name", NAMES)
def test_objective__a_term_reaches_its_student_alone(dataset: WindowDataset, soft: list[SoftLabels], name: str) -> None:
    kind = KINDS.get(name, "mlp")
    recipe, states = small_recipe(architecture=kind), states_of(dataset, kind)
    # Attention maps of untrained networks are nearly flat: only a large weight moves them in four epochs.
    plans = [plan_of(name, 50.0), plan_of(name, 0.0), plan_of(name, 50.0, alpha=0.0), plan_of(name).twin]
    students, _ = train_students(dataset, soft, plans, recipe, seed=0, states=states)
    with_term, without, truth_and_term, twin = first_weight(students)
    assert not torch.allclose(with_term, without, rtol=1e-3)
    assert not torch.allclose(truth_and_term, twin, rtol=1e-3)
    expected, _ = train_students(dataset, soft, [plans[1], plans[3]], recipe, seed=0)
    torch.testing.assert_close(torch.stack([without, twin]), first_weight(expected), rtol=1e-3, atol=1e-4)
    assert set(students.state_dict()) == set(expected.state_dict())  # no projection is left


@pytest.mark.parametrize("kind", ["mlp", "inverted"])
def test_objective__with_terms_together_equals_one_by_one(
    dataset: WindowDataset, soft: list[SoftLabels], kind: Architecture
) -> None:
    plans = [plan_of(name, seed=seed) for seed, name in enumerate(NAMES) if KINDS.get(name, kind) == kind]
    recipe, states = small_recipe(architecture=kind), states_of(dataset, kind)
    _, together = train_students(dataset, soft, plans, recipe, seed=0, states=states)
    for member, plan in enumerate(plans):
        _, alone = train_students(dataset, soft, [plan], recipe, seed=0, states=states)
        assert together.best_loss[member] == pytest.approx(alone.best_loss[0], rel=1e-4)


def test_objective__a_killed_run_goes_on_with_its_projection(
    dataset: WindowDataset, soft: list[SoftLabels], tmp_path: Path
) -> None:
    budget = Budget(epochs=8, patience=8, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe, plans = small_recipe(student_training=budget), [plan_of("features"), plan_of("features").twin]
    states = states_of(dataset, "mlp")
    whole, _ = train_students(dataset, soft, plans, recipe, seed=0, states=states)

    def kill(progress: Progress) -> None:
        if progress.epoch == 6:
            raise KeyboardInterrupt

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_students(dataset, soft, plans, recipe, seed=0, states=states, checkpoint=path, on_epoch=kill)
    resumed, _ = train_students(dataset, soft, plans, recipe, seed=0, states=states, checkpoint=path)
    assert torch.equal(resumed.last.weight, whole.last.weight)
