from functools import cache
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.core.builders import small_recipe, synthetic_panel, task_of
from tutelage.bodies import Inverted, States
from tutelage.distillation import Task, soft_labels, teacher_states, train_teacher
from tutelage.fit import Progress
from tutelage.lessons import further_loss, make_measure, path_of, taught_loss, truth_loss
from tutelage.losses import distillation_loss
from tutelage.networks import Forecaster
from tutelage.recipe import INSIDE, Architecture, Budget, Head, StudentPlan, Terms, Views
from tutelage.students import train_students

EDGES, SCALE = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([2.0, 0.5])
NAMES = list(Terms.model_fields)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([200]), train_hours=130, horizon=4)


@pytest.fixture(scope="module")
def soft(task: Task) -> Tensor:
    teacher, _ = train_teacher(task, small_recipe(), seed=0)
    return soft_labels(teacher, task, task.train, small_recipe(), seed=0)[None]


@cache
def states_of(task: Task, kind: Architecture) -> States:
    recipe = small_recipe(teacher=kind)
    teacher, _ = train_teacher(task, recipe, seed=0)
    return teacher_states(teacher, task, task.train, recipe, seed=0)


def plan_of(name: str, weight: float = 5.0, **changes: object) -> StudentPlan:
    return StudentPlan.model_validate({"alpha": 0.5, "dropout": 0.2, "terms": Terms(**{name: weight})} | changes)


@pytest.mark.parametrize(
    ("head", "outputs", "expected"),
    [("categorical", [0.0, 0.0, 0.0], -2 / 3), ("point", [1.5], 1.5), ("quantiles", [1.5] + [0.0] * 18, 1.5)],
)
def test_path_of__is_the_standardised_mean(head: Head, outputs: list[float], expected: float) -> None:
    measure = make_measure(head, EDGES, SCALE, horizon=1, decay=1.0)
    # Uniform over the bins the mean is (½ + 1½ + 3) / 3 = 5/3, which is ⅔ of a standard deviation below 2.
    assert path_of(measure, torch.tensor([[[outputs]]])).item() == pytest.approx(expected)


@pytest.mark.parametrize("head", ["categorical", "point", "quantiles"])
def test_taught_loss__each_hour_weighs_less_than_the_one_before(head: Head) -> None:
    width = {"categorical": 3, "point": 1, "quantiles": 19}[head]
    outputs = torch.randn(1, 5, 2, width, generator=torch.Generator().manual_seed(0))
    truth = torch.rand(5, 2, generator=torch.Generator().manual_seed(1)) * 4

    def loss(decay: float, hours: slice = slice(None)) -> float:
        there = outputs[:, :, hours]
        measure = make_measure(head, EDGES, SCALE, horizon=there.shape[2], decay=decay)
        found = taught_loss(
            measure, there, there, truth[:, hours].contiguous(), alpha=torch.zeros(1), temperature=1.0, gate=None
        )
        if decay == 1:
            torch.testing.assert_close(found, truth_loss(measure, there, truth[:, hours].contiguous()))
        return found.item()

    expected = 0.8 * loss(1.0, slice(1)) + 0.2 * loss(1.0, slice(1, 2))
    assert loss(0.25) == pytest.approx(expected, rel=1e-5)


def test_taught_loss__of_a_categorical_head_is_the_distillation_loss() -> None:
    outputs, teacher = (torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    alpha, measure = torch.tensor([0.9, 0.2]), make_measure("categorical", EDGES, SCALE, horizon=2, decay=1.0)
    truth = torch.full((5, 2), 1.5)  # the second bin
    found = taught_loss(measure, outputs, teacher, truth, alpha=alpha, temperature=2.0, gate=None)
    labels = torch.ones(5, 2, dtype=torch.int64)
    assert torch.equal(found, distillation_loss(outputs, teacher, labels, alpha=alpha, temperature=2.0))


def test_teacher_states__are_the_members_side_by_side(task: Task) -> None:
    recipe = small_recipe(views=Views(future_sigma=None, minutes_hours=2, auxiliary=True))
    teacher, _ = train_teacher(task, recipe, seed=0)
    found = teacher_states(teacher, task, task.train, recipe, seed=0, chunk=7)
    with torch.no_grad():
        first, second = teacher.hidden(*task.teacher_inputs(task.train, recipe, torch.Generator()))
    torch.testing.assert_close(found.hidden, torch.cat([first, second], dim=1)[None])
    assert found.tokens is None
    assert found.maps is None


@pytest.mark.parametrize("kind", ["patch", "inverted"])
def test_teacher_states__of_transformers_have_the_students_tokens(task: Task, kind: Architecture) -> None:
    found = states_of(task, kind)
    student = Forecaster(task.shape(small_recipe(student=kind), teacher=False), task.scalers, 1).eval()
    with torch.no_grad():
        own = student.states(*task.student_inputs(task.train))
    assert own.tokens is not None
    assert own.maps is not None
    assert found.tokens is not None
    assert found.maps is not None
    tokens = {"patch": 1, "inverted": 2 + 6}[kind]
    assert own.tokens.shape[2] == found.tokens.shape[2] == tokens
    assert found.tokens.shape[3] == 2 * own.tokens.shape[3]  # two members
    assert found.maps.shape == (1, len(task.train), 1, tokens, tokens)
    for maps in (own.maps, found.maps):
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(maps.shape[:-1]))


def test_states__of_a_teacher_share_attention_among_the_students_tokens(task: Task) -> None:
    recipe = small_recipe(teacher="inverted")
    teacher = Forecaster(task.shape(recipe, teacher=True), task.scalers, 1).eval()
    maps = []
    teacher.body.layers[-1].register_forward_hook(lambda layer, given, out: maps.append(out[1]))
    with torch.no_grad():
        found = teacher.states(*task.teacher_inputs(task.train[:3], recipe, torch.Generator()))
    whole = maps[0]
    assert whole.shape[-1] == 9
    assert found.maps is not None
    torch.testing.assert_close(found.maps[..., 0, 1], whole[..., 0, 1] / (1 - whole[..., 0, 8]))


# What a term needs of both sides; the others are content with any network.
KINDS: dict[str, Architecture] = {"variables": "inverted", "attention": "inverted"}


def first_weight(students: Forecaster) -> Tensor:
    """Of every member, the first thing that it does to its input."""
    body = students.body
    return body.of_past.weight if isinstance(body, Inverted) else body.first.weight


@pytest.mark.parametrize("name", NAMES)
def test_train_students__a_term_reaches_its_student_alone(task: Task, soft: Tensor, name: str) -> None:
    kind = KINDS.get(name, "mlp")
    recipe, states = small_recipe(student=kind), states_of(task, kind)
    # Attention maps of untrained networks are nearly flat: only a large weight moves them in four epochs.
    plans = [plan_of(name, 50.0), plan_of(name, 0.0), plan_of(name, 50.0, alpha=0.0), plan_of(name).twin]
    students, _ = train_students(task, soft, plans, recipe, seed=0, states=states)
    with_term, without, truth_and_term, twin = first_weight(students)
    assert not torch.allclose(with_term, without, rtol=1e-3)
    assert not torch.allclose(truth_and_term, twin, rtol=1e-3)
    expected, _ = train_students(task, soft, [plans[1], plans[3]], recipe, seed=0)
    torch.testing.assert_close(torch.stack([without, twin]), first_weight(expected), rtol=1e-3, atol=1e-4)
    assert set(students.state_dict()) == set(expected.state_dict())  # no projection is left


@pytest.mark.parametrize("kind", ["mlp", "inverted"])
def test_train_students__with_terms_together_equals_one_by_one(task: Task, soft: Tensor, kind: Architecture) -> None:
    plans = [plan_of(name, seed=seed) for seed, name in enumerate(NAMES) if KINDS.get(name, kind) == kind]
    recipe, states = small_recipe(student=kind), states_of(task, kind)
    _, together = train_students(task, soft, plans, recipe, seed=0, states=states)
    for member, plan in enumerate(plans):
        _, alone = train_students(task, soft, [plan], recipe, seed=0, states=states)
        assert together.best_loss[member] == pytest.approx(alone.best_loss[0], rel=1e-4)


def test_train_students__a_killed_run_goes_on_with_its_projection(task: Task, soft: Tensor, tmp_path: Path) -> None:
    budget = Budget(epochs=8, patience=8, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe, plans = small_recipe(student_budget=budget), [plan_of("features"), plan_of("features").twin]
    states = states_of(task, "mlp")
    whole, _ = train_students(task, soft, plans, recipe, seed=0, states=states)

    def kill(progress: Progress) -> None:
        if progress.epoch == 6:
            raise KeyboardInterrupt

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_students(task, soft, plans, recipe, seed=0, states=states, checkpoint=path, on_epoch=kill)
    resumed, _ = train_students(task, soft, plans, recipe, seed=0, states=states, checkpoint=path)
    assert torch.equal(resumed.last.weight, whole.last.weight)


@pytest.mark.parametrize("name", list(INSIDE))
def test_train_students__refuses_terms_without_states(task: Task, soft: Tensor, name: str) -> None:
    with pytest.raises(ValueError, match="a plan is taught by the teacher's states, and none are given"):
        train_students(task, soft, [plan_of(name)], small_recipe(), seed=0)


@pytest.mark.parametrize("name", list(KINDS))
def test_train_students__refuses_terms_that_its_network_has_nothing_for(task: Task, soft: Tensor, name: str) -> None:
    with pytest.raises(ValueError, match=f"the term '{name}' needs {INSIDE[name]} of student and teacher"):
        train_students(task, soft, [plan_of(name)], small_recipe(), seed=0, states=states_of(task, "inverted"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"terms": {"attention": 1.0}}, "two transformers of one kind, patch or inverted; the teacher's kind is mlp"),
        ({"terms": {"attention": 1.0}, "teacher": "patch", "student": "inverted"}, "the student's inverted"),
        ({"terms": {"variables": 1.0}, "teacher": "patch", "student": "patch"}, "the teacher's kind is patch"),
        ({"terms": {"times": 1.0}, "head": "point"}, "terms.times: it needs a head with more than one value an hour"),
    ],
)
def test_recipe__refuses_terms_that_cannot_be_taught(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        small_recipe(**changes)


def test_further_loss__similarities_between_hours_golden() -> None:
    measure = make_measure("categorical", torch.tensor([0.0, 1.0, 2.0]), SCALE, horizon=2, decay=1.0)
    student = torch.tensor([[[[0.5, 0.5], [0.5, 0.5]]]]).log()
    teacher = torch.tensor([[[[0.9, 0.1], [0.1, 0.9]]]]).log()
    found = further_loss(
        measure,
        {"times": torch.tensor([2.0])},
        outputs=student,
        labels=teacher,
        path=torch.zeros(1, 1, 2),
        states=States(torch.zeros(1, 1, 1)),
        teacher=None,
        projection=None,
    )
    # The student's hours are alike, 1; the teacher's are √0.09 + √0.09 = 0.6 alike. Two cells of four differ by 0.4.
    assert found.item() == pytest.approx(2 * 2 / 4 * 0.4**2, rel=1e-5)


def test_further_loss__a_point_head_has_no_similarities_between_hours() -> None:
    measure = make_measure("point", EDGES, SCALE, horizon=2, decay=1.0)
    values = torch.zeros(1, 1, 2, 1)
    with pytest.raises(ValueError, match="'times' needs a head with more than one value an hour"):
        further_loss(
            measure,
            {"times": torch.ones(1)},
            outputs=values,
            labels=values,
            path=torch.zeros(1, 1, 2),
            states=States(torch.zeros(1, 1, 1)),
            teacher=None,
            projection=None,
        )
