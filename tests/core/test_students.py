import datetime as dt
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.core.builders import START, small_recipe, synthetic_panel, target_alone, task_of
from tutelage.distillation import Task, soft_labels, train_teacher
from tutelage.fit import Progress
from tutelage.losses import hard_label_loss
from tutelage.networks import select_members
from tutelage.recipe import Budget, Head, StudentPlan, Views
from tutelage.students import forecast_students, pair_plans, plan_student, train_pairs, train_students
from tutelage.weights import describe
from tutelage.windows import Span, window_origins

NOTHING = Views(future_sigma=None, minutes_hours=0, auxiliary=False)
BUDGET = Budget(epochs=15, patience=15, batch_size=32, learning_rate=0.01, dropout=0.0)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([160]), train_hours=100)


def random_soft(task: Task, seed: int = 0) -> Tensor:
    shape = len(task.taught()), task.horizon, len(task.bins)
    return functional.log_softmax(2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_train_pairs__student_and_twin_differ_in_alpha_alone(task: Task) -> None:
    (student, twin), progress = train_pairs(task, random_soft(task)[None], small_recipe(alpha=0.0), seed=0)
    for name, weight in student.named_parameters():
        assert torch.equal(weight, twin.get_parameter(name)), name
    for epoch in progress.history:
        assert epoch["train"][0] == epoch["train"][1]
        assert epoch["validation"][0] == epoch["validation"][1]


def test_train_pairs__the_teacher_moves_the_student_and_not_the_twin(task: Task) -> None:
    first, other = (train_pairs(task, random_soft(task, seed)[None], small_recipe(), seed=0)[0] for seed in (0, 1))
    assert not torch.allclose(first[0].last.weight, other[0].last.weight)
    torch.testing.assert_close(first[1].last.weight, other[1].last.weight)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_train_pairs__a_student_of_alpha_one_learns_what_its_teacher_says(task: Task, temperature: float) -> None:
    said = random_soft(task)[0, 0]  # of every hour the same
    soft = said.expand(len(task.train), task.horizon, -1)
    recipe = small_recipe(alpha=1.0, temperature=temperature, student_budget=BUDGET)
    _, progress = train_pairs(task, soft[None], recipe, seed=0)
    assert progress.history[-1]["train"][0] < 0.1 * progress.history[0]["train"][0]


def test_train_pairs__soft_labels_belong_to_their_windows(task: Task) -> None:
    recipe = small_recipe(student_budget=BUDGET.model_copy(update={"batch_size": 1024, "epochs": 3}))
    soft, order = random_soft(task), torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))
    shuffled = replace(task, train=task.train[order])
    (expected, _), _ = train_pairs(task, soft[None], recipe, seed=0)
    (together, _), _ = train_pairs(shuffled, soft[None, order], recipe, seed=0)
    (mixed_up, _), _ = train_pairs(shuffled, soft[None], recipe, seed=0)
    torch.testing.assert_close(together.last.weight, expected.last.weight, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(mixed_up.last.weight, expected.last.weight, rtol=1e-3, atol=1e-4)


def test_train_pairs__teacher_to_student_end_to_end(task: Task) -> None:
    recipe = small_recipe()
    teacher, _ = train_teacher(task, recipe, seed=0)
    soft = soft_labels(teacher, task, task.train, recipe, seed=0)
    (student, twin), progress = train_pairs(task, soft[None], recipe, seed=0)
    assert len(progress.history) == recipe.student_budget.epochs
    for network, best in zip((student, twin), progress.best_loss, strict=True):
        assert network.shape == task.shape(recipe, teacher=False)
        assert network.shape.privileged == 0
        with torch.no_grad():
            logits = network.eval()(*task.student_inputs(task.validation))
        assert hard_label_loss(logits, task.labels(task.validation)).item() == pytest.approx(best, rel=1e-5)


PLANS = [
    StudentPlan(seed=3, alpha=0.9, temperature=2.0, dropout=0.4, soft=1),
    StudentPlan(seed=3, alpha=0.0, dropout=0.4),
    StudentPlan(seed=8, alpha=1.0, temperature=1.0, dropout=0.0, soft=0),
    StudentPlan(seed=5, alpha=0.5, temperature=0.7, dropout=0.1, soft=1),
]


def two_sets(task: Task) -> Tensor:
    return torch.stack([random_soft(task, 1), random_soft(task, 2)])


@pytest.mark.parametrize("patience", [25, 2], ids=["to the end", "stopped early"])
def test_train_students__together_equals_one_by_one(task: Task, patience: int) -> None:
    budget = Budget(epochs=25, patience=patience, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe = small_recipe(student_budget=budget)
    together, progress = train_students(task, two_sets(task), PLANS, recipe, seed=0)
    lengths = []
    for member, plan in enumerate(PLANS):
        alone, its_own = train_students(task, two_sets(task), [plan], recipe, seed=0)
        lengths.append(its_own.epoch)
        assert progress.best_epoch[member] == its_own.best_epoch[0]
        assert progress.best_loss[member] == pytest.approx(its_own.best_loss[0], rel=1e-5)
        for epoch, other in zip(progress.history, its_own.history, strict=False):
            assert epoch["train"][member] == pytest.approx(other["train"][0], rel=1e-4)
        for name, weight in alone.named_parameters():
            torch.testing.assert_close(together.get_parameter(name)[member], weight[0], rtol=1e-3, atol=1e-4)
    assert progress.epoch == max(lengths)
    assert patience == 25 or min(lengths) < max(lengths)


def test_train_students__each_plan_is_a_student_of_its_own(task: Task) -> None:
    base = StudentPlan(seed=0, alpha=0.5, temperature=2.0, dropout=0.2, soft=0)
    changes = {"seed": 1, "alpha": 0.9, "temperature": 1.0, "dropout": 0.5, "soft": 1}
    plans = [base, base, *(base.model_copy(update={name: value}) for name, value in changes.items())]
    students, _ = train_students(task, two_sets(task), plans, small_recipe(), seed=0)
    same, *others = students.last.weight[1:]
    assert torch.equal(same, students.last.weight[0])
    for name, other in zip(changes, others, strict=True):
        assert not torch.allclose(other, same, rtol=1e-3), name


def test_train_students__reads_the_validation_part_in_chunks(task: Task) -> None:
    whole, parts = (
        train_students(task, two_sets(task), PLANS, small_recipe(), seed=0, chunk=chunk)[1] for chunk in (1024, 7)
    )
    assert parts.best_loss == pytest.approx(whole.best_loss, rel=1e-5)


def test_train_students__no_teacher_reaches_a_twin(task: Task) -> None:
    first, other = (
        train_students(task, soft, PLANS[:2], small_recipe(), seed=0)[0]
        for soft in two_sets(task)[:, None].repeat(1, 2, 1, 1, 1)
    )
    assert not torch.allclose(first.last.weight[0], other.last.weight[0])
    assert torch.equal(first.last.weight[1], other.last.weight[1])


def test_train_students__a_shut_gate_leaves_the_truth_alone(task: Task) -> None:
    plans = [PLANS[0], PLANS[1]]
    shut, _ = train_students(task, two_sets(task), plans, small_recipe(), seed=0, gate=torch.zeros(1, 1, 1))
    assert torch.equal(shut.last.weight[0], shut.last.weight[1])


def test_train_students__each_set_window_and_hour_has_its_gate(task: Task) -> None:
    sets, gate = two_sets(task), torch.ones(2, len(task.train), task.horizon)
    gate[0] = gate[1, 5:, 0] = 0.0
    spoiled = sets.clone()
    spoiled[1, 5:, 0] = random_soft(task, 9)[5:, 0]
    base = [PLANS[0], PLANS[0].model_copy(update={"soft": 0}), PLANS[1]]
    found, _ = train_students(task, spoiled, base, small_recipe(), seed=0, gate=gate)
    expected, _ = train_students(task, sets, base, small_recipe(), seed=0, gate=gate)
    torch.testing.assert_close(found.last.weight, expected.last.weight)
    torch.testing.assert_close(found.last.weight[1], found.last.weight[2])
    assert not torch.allclose(found.last.weight[0], found.last.weight[2])


@pytest.mark.parametrize("head", ["quantiles", "point"])
def test_train_students__every_head_together_equals_one_by_one(task: Task, head: Head) -> None:
    recipe = small_recipe(head=head)
    together, progress = train_students(task, two_sets(task), PLANS, recipe, seed=0)
    for member, plan in enumerate(PLANS):
        alone, its_own = train_students(task, two_sets(task), [plan], recipe, seed=0)
        assert progress.best_loss[member] == pytest.approx(its_own.best_loss[0], rel=1e-4)
        torch.testing.assert_close(together.last.weight[member], alone.last.weight[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together.last.weight[0], together.last.weight[1])


@pytest.mark.parametrize("head", ["quantiles", "point"])
def test_train_students__a_student_of_every_head_learns_what_its_teacher_says(task: Task, head: Head) -> None:
    soft = random_soft(task)[0, 0].expand(1, len(task.train), task.horizon, -1)  # of every hour the same
    budget = BUDGET.model_copy(update={"epochs": 40, "patience": 40})
    recipe = small_recipe(student_budget=budget, head=head)
    _, progress = train_students(task, soft, [StudentPlan(alpha=1.0, dropout=0.0)], recipe, seed=0)
    assert progress.history[-1]["train"][0] < 0.1 * progress.history[0]["train"][0]


@pytest.fixture(scope="module")
def alone() -> Task:
    """A task without observed columns beside the target, which can be rolled out."""
    return task_of(target_alone(synthetic_panel([160])), train_hours=100)


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_train_students__rolled_together_equals_one_by_one(alone: Task, head: Head) -> None:
    recipe = small_recipe(head=head, rolled=True)
    together, progress = train_students(alone, two_sets(alone), PLANS, recipe, seed=0)
    for member, plan in enumerate(PLANS):
        single, its_own = train_students(alone, two_sets(alone), [plan], recipe, seed=0)
        assert progress.best_loss[member] == pytest.approx(its_own.best_loss[0], rel=1e-4)
        torch.testing.assert_close(together.last.weight[member], single.last.weight[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together.last.weight[0], together.last.weight[1])


def test_train_pairs__a_rolled_pair_goes_on_from_its_checkpoint(alone: Task, tmp_path: Path) -> None:
    budget = BUDGET.model_copy(update={"epochs": 7, "dropout": 0.2})
    recipe, soft = small_recipe(rolled=True, student_budget=budget), random_soft(alone)[None]
    before, _ = train_pairs(alone, soft, recipe, seed=4)

    def killed(progress: Progress) -> None:
        if progress.epoch == 6:
            raise KeyboardInterrupt

    file = tmp_path / "pair.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_pairs(alone, soft, recipe, seed=4, checkpoint=file, on_epoch=killed)
    resumed, _ = train_pairs(alone, soft, recipe, seed=4, checkpoint=file)
    for whole, again in zip(before, resumed, strict=True):
        assert torch.equal(whole.last.weight, again.last.weight)


PERIOD_HOURS = 17  # so that the calendar does not give it away
NOISE = 0.3


def test_train_students__errors_of_a_rolled_student_build_up_less_than_in_a_twin_of_the_next_hour() -> None:
    """A noisy sine, and a teacher who knows it without its noise."""
    clean = torch.sin(2 * math.pi * torch.arange(500) / PERIOD_HOURS)
    noise = NOISE * torch.randn(500, generator=torch.Generator().manual_seed(0))
    panel = replace(synthetic_panel([500]), observed=(clean + noise)[:, None])
    task = task_of(panel, train_hours=350, lookback=3, horizon=10)
    middle = (task.edges()[1:] + task.edges()[:-1]) / 2
    distance = clean[task.train[:, None] + torch.arange(10)].unsqueeze(-1) - middle
    soft = functional.log_softmax(-(distance**2) / (2 * NOISE**2), dim=-1)
    budget = Budget(epochs=15, patience=15, batch_size=64, learning_rate=0.01, dropout=0.0)

    def rmse(alpha: float, decay: float) -> Tensor:
        recipe = small_recipe(head="point", rolled=True, horizon_decay=decay, student_budget=budget)
        student, _ = train_students(task, soft[None], [StudentPlan(alpha=alpha, dropout=0.0)], recipe, seed=0)
        mean, std = task.scale()
        with torch.no_grad():
            found = student(*task.student_inputs(task.validation)).squeeze() * std + mean
        return (found - task.truth(task.validation)).square().mean(dim=0).sqrt()

    taught, next_hour = rmse(0.9, 1.0), rmse(0.0, 1e-6)
    # Three noisy hours make a step that damps the wave, and a roll-out that ends at the mean: an error of √(½ + 0.09).
    assert next_hour[-1] == pytest.approx(math.sqrt(0.5 + NOISE**2), rel=0.15)
    assert taught[-1] < 0.8 * next_hour[-1]
    assert taught[-1] - taught[0] < 0.5 * (next_hour[-1] - next_hour[0])
    assert taught.min() > NOISE  # the noise is nobody's to foretell


@pytest.mark.parametrize("head", ["categorical", "point"])
def test_train_students__a_vanishing_decay_trains_a_rolled_twin_on_the_next_hour_alone(alone: Task, head: Head) -> None:
    """The weights are those of a network that has no further hours."""
    budget = BUDGET.model_copy(update={"epochs": 1})
    recipe = small_recipe(head=head, rolled=True, horizon_decay=1e-12, student_budget=budget)
    twin = [StudentPlan(alpha=0.0, dropout=0.0)]
    found, _ = train_students(alone, random_soft(alone)[None], twin, recipe, seed=0)
    short = replace(alone, horizon=1)
    plain = small_recipe(head=head, student_budget=budget)
    expected, _ = train_students(short, random_soft(short)[None], twin, plain, seed=0)
    assert found.shape.horizon == 2
    torch.testing.assert_close(found.last.weight, expected.last.weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("plans", [[], [StudentPlan(soft=2)]], ids=["no plan", "no such set"])
def test_train_students__refuses_plans_that_it_cannot_teach(task: Task, plans: list[StudentPlan]) -> None:
    with pytest.raises(ValueError, match="can't be taught from 2 sets of soft labels"):
        train_students(task, two_sets(task), plans, small_recipe(), seed=0)


def test_pair_plans__students_of_one_seed_and_dropout_share_a_twin() -> None:
    plans = [StudentPlan(seed=seed, alpha=alpha) for seed in (0, 1) for alpha in (0.5, 0.9)]
    every, pairs = pair_plans(plans)
    assert every[:4] == plans
    assert [(plan.seed, plan.alpha) for plan in every[4:]] == [(0, 0.0), (1, 0.0)]
    assert pairs == [(0, 4), (1, 4), (2, 5), (3, 5)]


def test_pair_plans__a_twin_that_is_asked_for_is_its_own() -> None:
    twin = StudentPlan(alpha=0.0, temperature=1.0)
    assert pair_plans([twin]) == ([twin], [(0, 0)])


def test_train_pairs__is_two_of_many(task: Task) -> None:
    recipe = small_recipe(student_budget=BUDGET.model_copy(update={"dropout": 0.3, "epochs": 4}))
    (student, twin), progress = train_pairs(task, random_soft(task)[None], recipe, seed=6)
    plan = StudentPlan(seed=6, alpha=recipe.alpha, temperature=recipe.temperature, dropout=0.3)
    plans = [StudentPlan(seed=1), plan.twin, plan]
    many, together = train_students(task, random_soft(task)[None], plans, recipe, seed=6)
    assert progress.best_loss == pytest.approx([together.best_loss[2], together.best_loss[1]], rel=1e-4)
    for place, network in ((2, student), (1, twin)):
        chosen = select_members(many, task.scalers, [place])
        torch.testing.assert_close(network.last.weight, chosen.last.weight, rtol=1e-3, atol=1e-4)
        assert network.shape == chosen.shape == task.shape(recipe, teacher=False)


def test_train_pairs__each_pair_ends_as_it_would_alone_and_has_its_own_twin(task: Task) -> None:
    recipe = small_recipe(student_budget=BUDGET.model_copy(update={"dropout": 0.3, "epochs": 4}))
    (students, twins), progress = train_pairs(task, random_soft(task)[None], recipe, seed=6, pairs=3)
    assert (students.members, twins.members, len(progress.best_loss)) == (3, 3, 6)
    (one, its_twin), alone = train_pairs(task, random_soft(task)[None], recipe, seed=6)
    assert [progress.best_loss[0], progress.best_loss[3]] == pytest.approx(alone.best_loss, rel=1e-4)
    for many, first in ((students, one), (twins, its_twin)):
        chosen = select_members(many, task.scalers, [0])
        torch.testing.assert_close(first.last.weight, chosen.last.weight, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(many.last.weight[0], many.last.weight[1])
    (untaught, _), _ = train_pairs(
        task, random_soft(task)[None], recipe.model_copy(update={"alpha": 0.0}), seed=6, pairs=3
    )
    torch.testing.assert_close(untaught.last.weight, twins.last.weight, rtol=1e-3, atol=1e-4)


def test_train_pairs__a_control_beside_them_changes_nothing_and_has_lessons_of_its_own(task: Task) -> None:
    recipe = small_recipe(student_budget=BUDGET.model_copy(update={"dropout": 0.3, "epochs": 4}))
    gate = torch.stack([torch.ones(1, task.horizon), torch.full((1, task.horizon), 0.5)])
    every, progress = train_pairs(task, two_sets(task), recipe, seed=6, pairs=2, gate=gate)
    assert [network.members for network in every] == [2, 2, 2]
    (control, twins), alone = train_pairs(task, two_sets(task)[1:], recipe, seed=6, pairs=2, gate=gate[1:])
    assert progress.best_loss[2:] == pytest.approx(alone.best_loss, rel=1e-4)
    for own, expected in zip(every[1:], (control, twins), strict=True):
        torch.testing.assert_close(own.last.weight, expected.last.weight, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(every[0].last.weight, every[1].last.weight, rtol=1e-3, atol=1e-4)


def test_forecast_students__one_member_after_the_other(task: Task) -> None:
    (students, _), _ = train_pairs(task, random_soft(task)[None], small_recipe(), seed=0, pairs=2)
    told = list(forecast_students(students, task, task.validation, chunk=7))
    for member, forecast in enumerate(told):
        alone = select_members(students, task.scalers, [member])
        [expected] = forecast_students(alone, task, task.validation)
        np.testing.assert_allclose(forecast.quantiles, expected.quantiles, rtol=1e-5)
        assert forecast.mean.shape == (len(task.validation), task.horizon)
    assert not np.allclose(told[0].mean, told[1].mean)


def part_without_target(task: Task) -> Task:
    """The same task where the target of three hours is missing; windows that only lack these come along."""
    panel = replace(task.panel, observed=task.panel.observed.clone())
    panel.observed[[20, 40, 60], 0] = torch.nan
    found = task_of(panel, train_hours=100)
    span = Span(START, START + dt.timedelta(hours=100))
    unlabelled = window_origins(panel, span, lookback=task.lookback, horizon=task.horizon, labelled=False)
    return replace(found, unlabelled=unlabelled)


def test_train_students__soft_labels_teach_windows_without_a_target(task: Task) -> None:
    whole = part_without_target(task)
    # Each missing hour is the first or the second hour ahead of a window whose past is there.
    assert whole.unlabelled.tolist() == [19, 20, 39, 40, 59, 60]
    plans = [
        StudentPlan(alpha=1.0, dropout=0.0),
        StudentPlan(alpha=0.5, dropout=0.0),
        StudentPlan(alpha=0.0, dropout=0.0),
    ]
    soft = random_soft(whole)
    other = soft.clone()
    other[-6:] = random_soft(whole, seed=1)[-6:]
    first, second = (
        train_students(whole, s[None], plans, small_recipe(), seed=0)[0].last.weight for s in (soft, other)
    )
    assert not torch.allclose(first[0], second[0], rtol=1e-3)
    assert not torch.allclose(first[1], second[1], rtol=1e-3)
    assert torch.equal(first[2], second[2])


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_train_students__a_missing_target_teaches_nothing(task: Task, head: Head) -> None:
    whole = part_without_target(task)
    everything = BUDGET.model_copy(update={"batch_size": 1024, "epochs": 1})
    recipe = small_recipe(head=head, student_budget=everything)
    twin = [StudentPlan(alpha=0.0, dropout=0.0)]
    with_them, _ = train_students(whole, random_soft(whole)[None], twin, recipe, seed=0)
    assert with_them.last.weight.isfinite().all()
    # An hour that has a target still teaches, though the other hour of its window has none.
    panel = replace(whole.panel, observed=whole.panel.observed.clone())
    panel.observed[21, 0] += 3.0
    moved, _ = train_students(replace(whole, panel=panel), random_soft(whole)[None], twin, recipe, seed=0)
    assert not torch.equal(moved.last.weight, with_them.last.weight)


def test_train_pairs__a_gate_is_the_students_alone(task: Task) -> None:
    soft = random_soft(task)[None]
    shut = torch.zeros(1, 1, task.horizon)
    (student, twin), _ = train_pairs(task, soft, small_recipe(), seed=0, gate=shut)
    assert torch.equal(student.last.weight, twin.last.weight)


def test_describe__holds_all_that_rebuilds_the_network(task: Task) -> None:
    teacher, _ = train_teacher(task, small_recipe(), seed=0)
    told = describe(teacher, task.scalers)
    assert (told["members"], told["shape"]["width"], told["shape"]["bins"]) == (2, 16, len(task.bins))
    assert told["scalers"]["observed"]["mean"] == task.scalers.observed.mean


def test_plan_student__alpha_is_less_where_few_windows_fit_one_after_the_other(task: Task) -> None:
    few, many = small_recipe(alpha=0.9, few_alpha=0.5), small_recipe(alpha=0.9, few_alpha=None)
    enough = replace(task, train=torch.arange(50 * task.horizon))
    assert plan_student(enough, few, seed=1).alpha == 0.9
    short = replace(task, train=enough.train[:-1])
    assert plan_student(short, few, seed=1).alpha == 0.5
    assert plan_student(short, many, seed=1).alpha == 0.9
    assert plan_student(short, small_recipe(alpha=0.3, few_alpha=0.5), seed=1).alpha == 0.3
