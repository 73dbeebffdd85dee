from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.core.builders import small_recipe, synthetic_panel, task_of
from tutelage.distillation import Task, hidden_states, soft_labels, train_teacher
from tutelage.fit import Progress
from tutelage.lessons import make_measure, path_of, taught_loss, truth_loss
from tutelage.losses import distillation_loss
from tutelage.networks import Forecaster
from tutelage.recipe import Budget, Head, StudentPlan, Terms, Views
from tutelage.students import train_students

EDGES, SCALE = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([2.0, 0.5])
NAMES = list(Terms.model_fields)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([200]), train_hours=130, horizon=4)


@pytest.fixture(scope="module")
def teacher(task: Task) -> Forecaster:
    return train_teacher(task, small_recipe(), seed=0)[0]


@pytest.fixture(scope="module")
def soft(task: Task, teacher: Forecaster) -> Tensor:
    return soft_labels(teacher, task, task.train, small_recipe(), seed=0)[None]


@pytest.fixture(scope="module")
def hidden(task: Task, teacher: Forecaster) -> Tensor:
    return hidden_states(teacher, task, task.train, small_recipe(), seed=0)[None]


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


def test_hidden_states__are_the_members_side_by_side(task: Task) -> None:
    recipe = small_recipe(views=Views(future_sigma=None, minutes_hours=2, auxiliary=True))
    teacher, _ = train_teacher(task, recipe, seed=0)
    found = hidden_states(teacher, task, task.train, recipe, seed=0, chunk=7)
    with torch.no_grad():
        first, second = teacher.hidden(*task.teacher_inputs(task.train, recipe, torch.Generator()))
    torch.testing.assert_close(found, torch.cat([first, second], dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_train_students__a_term_reaches_its_student_alone(task: Task, soft: Tensor, hidden: Tensor, name: str) -> None:
    plans = [plan_of(name), plan_of(name, 0.0), plan_of(name, alpha=0.0), plan_of(name).twin]
    students, _ = train_students(task, soft, plans, small_recipe(), seed=0, hidden=hidden)
    with_term, without, truth_and_term, twin = students.body.first.weight
    assert not torch.allclose(with_term, without, rtol=1e-3)
    assert not torch.allclose(truth_and_term, twin, rtol=1e-3)
    expected, _ = train_students(task, soft, [plans[1], plans[3]], small_recipe(), seed=0)
    torch.testing.assert_close(torch.stack([without, twin]), expected.body.first.weight, rtol=1e-3, atol=1e-4)
    assert set(students.state_dict()) == set(expected.state_dict())  # no projection is left


def test_train_students__with_terms_together_equals_one_by_one(task: Task, soft: Tensor, hidden: Tensor) -> None:
    plans = [plan_of(name, seed=seed) for seed, name in enumerate(NAMES)]
    _, together = train_students(task, soft, plans, small_recipe(), seed=0, hidden=hidden)
    for member, plan in enumerate(plans):
        _, alone = train_students(task, soft, [plan], small_recipe(), seed=0, hidden=hidden)
        assert together.best_loss[member] == pytest.approx(alone.best_loss[0], rel=1e-4)


def test_train_students__a_killed_run_goes_on_with_its_projection(
    task: Task, soft: Tensor, hidden: Tensor, tmp_path: Path
) -> None:
    budget = Budget(epochs=8, patience=8, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe, plans = small_recipe(student_budget=budget), [plan_of("features"), plan_of("features").twin]
    whole, _ = train_students(task, soft, plans, recipe, seed=0, hidden=hidden)

    def kill(progress: Progress) -> None:
        if progress.epoch == 6:
            raise KeyboardInterrupt

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_students(task, soft, plans, recipe, seed=0, hidden=hidden, checkpoint=path, on_epoch=kill)
    resumed, _ = train_students(task, soft, plans, recipe, seed=0, hidden=hidden, checkpoint=path)
    assert torch.equal(resumed.last.weight, whole.last.weight)


@pytest.mark.parametrize("name", ["windows", "features"])
def test_train_students__refuses_terms_without_hidden_states(task: Task, soft: Tensor, name: str) -> None:
    with pytest.raises(ValueError, match="a plan is taught by the teacher's hidden states, and none are given"):
        train_students(task, soft, [plan_of(name)], small_recipe(), seed=0)
