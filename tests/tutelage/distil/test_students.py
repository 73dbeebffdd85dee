import datetime as dt
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import (
    START,
    Float64OnCpu,
    dataset_of,
    random_labels,
    small_network,
    small_recipe,
    synthetic_panel,
    target_alone,
)
from tutelage.data.windows import Span, window_origins
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.objective import make_objective
from tutelage.distil.plans import StudentPlan
from tutelage.distil.recipe import HIDDEN_STATE_TERMS, Terms
from tutelage.distil.soft_labels import SoftLabels, uniform_labels
from tutelage.distil.students import forecast_students, train_students
from tutelage.model.architectures import ARCHITECTURES
from tutelage.model.kinds import Architecture, Budget, Head
from tutelage.model.networks import select_members

BUDGET = Budget(epochs=15, patience=15, batch_size=32, learning_rate=0.01, dropout=0.0)
TWIN = StudentPlan(alpha=0.0, dropout=0.0)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([160]), train_hours=100)


def same_every_hour(dataset: WindowDataset) -> SoftLabels:
    """Random soft labels of the first window's first hour, for every window and hour."""
    labels = random_labels(dataset)
    return SoftLabels(labels.origins, labels.log_probabilities[0, 0].expand_as(labels.log_probabilities))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_train_students__a_student_of_alpha_one_learns_what_its_teacher_forecasts(
    dataset: WindowDataset, temperature: float
) -> None:
    plan = StudentPlan(alpha=1.0, temperature=temperature, dropout=0.0)
    _, progress = train_students(
        dataset, [same_every_hour(dataset)], [plan], small_recipe(student_training=BUDGET), seed=0
    )
    assert progress.history[-1]["train"][0] < 0.1 * progress.history[0]["train"][0]


def test_train_students__soft_labels_belong_to_their_windows(dataset: WindowDataset) -> None:
    recipe = small_recipe(student_training=BUDGET.model_copy(update={"batch_size": 1024, "epochs": 3}))
    labels, order = (
        random_labels(dataset),
        torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0)),
    )
    shuffled = replace(dataset, train=dataset.train[order])

    def trained(windows: WindowDataset, soft: SoftLabels) -> Tensor:
        return train_students(windows, [soft], [StudentPlan(dropout=0.0)], recipe, seed=0)[0].last.weight

    expected = trained(dataset, labels)
    together = trained(shuffled, SoftLabels(shuffled.train, labels.log_probabilities[order]))
    mixed_up = trained(shuffled, SoftLabels(shuffled.train, labels.log_probabilities))
    torch.testing.assert_close(together, expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(trained(shuffled, labels), together)
    assert not torch.allclose(mixed_up, expected, rtol=1e-3, atol=1e-4)


PLANS = [
    StudentPlan(seed=3, alpha=0.9, temperature=2.0, dropout=0.4, soft=1),
    StudentPlan(seed=3, alpha=0.0, dropout=0.4),
    StudentPlan(seed=8, alpha=1.0, temperature=1.0, dropout=0.0, soft=0),
    StudentPlan(seed=5, alpha=0.5, temperature=0.7, dropout=0.1, soft=1),
]


def two_sets(dataset: WindowDataset) -> list[SoftLabels]:
    return [random_labels(dataset, seed=1), random_labels(dataset, seed=2)]


@pytest.mark.parametrize("patience", [25, 2], ids=["to the end", "stopped early"])
def test_train_students__together_equals_one_by_one(dataset: WindowDataset, patience: int) -> None:
    budget = Budget(epochs=25, patience=patience, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe = small_recipe(student_training=budget)
    together, progress = train_students(dataset, two_sets(dataset), PLANS, recipe, seed=0)
    lengths = []
    for member, plan in enumerate(PLANS):
        alone, of_one = train_students(dataset, two_sets(dataset), [plan], recipe, seed=0)
        lengths.append(of_one.epoch)
        assert progress.best_epoch[member] == of_one.best_epoch[0]
        assert progress.best_loss[member] == pytest.approx(of_one.best_loss[0], rel=1e-5)
        for epoch, other in zip(progress.history, of_one.history, strict=False):
            assert epoch["train"][member] == pytest.approx(other["train"][0], rel=1e-4)
        for name, weight in alone.named_parameters():
            torch.testing.assert_close(together.get_parameter(name)[member], weight[0], rtol=1e-3, atol=1e-4)
    assert progress.epoch == max(lengths)
    assert patience == 25 or min(lengths) < max(lengths)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_train_students__every_architecture_together_equals_one_by_one(
    dataset: WindowDataset, architecture: Architecture
) -> None:
    budget = Budget(epochs=3, patience=3, batch_size=32, learning_rate=1e-3, dropout=0.0)
    recipe, soft = small_recipe(architecture=architecture, student_training=budget), [random_labels(dataset)]
    plans = [StudentPlan(seed=1, alpha=0.9, dropout=0.3), StudentPlan(seed=2, alpha=0.0, dropout=0.0)]
    _, together = train_students(dataset, soft, plans, recipe, seed=0)
    for member, plan in enumerate(plans):
        _, alone = train_students(dataset, soft, [plan], recipe, seed=0)
        assert together.best_loss[member] == pytest.approx(alone.best_loss[0], rel=1e-4)


def test_train_students__every_value_of_a_plan_makes_another_student(dataset: WindowDataset) -> None:
    base = StudentPlan(seed=0, alpha=0.5, temperature=2.0, dropout=0.2, soft=0)
    changes = {"seed": 1, "alpha": 0.9, "temperature": 1.0, "dropout": 0.5, "soft": 1}
    plans = [base, base, *(base.model_copy(update={name: value}) for name, value in changes.items())]
    students, _ = train_students(dataset, two_sets(dataset), plans, small_recipe(), seed=0)
    same, *others = students.last.weight[1:]
    assert torch.equal(same, students.last.weight[0])
    for name, other in zip(changes, others, strict=True):
        assert not torch.allclose(other, same, rtol=1e-3), name


def test_train_students__reads_the_validation_part_in_chunks(dataset: WindowDataset) -> None:
    whole, parts = (
        train_students(dataset, two_sets(dataset), PLANS, small_recipe(), seed=0, chunk=chunk)[1] for chunk in (1024, 7)
    )
    assert parts.best_loss == pytest.approx(whole.best_loss, rel=1e-5)


def test_train_students__no_teacher_reaches_a_twin(dataset: WindowDataset) -> None:
    first, other = (
        train_students(dataset, [labels, labels], PLANS[:2], small_recipe(), seed=0)[0] for labels in two_sets(dataset)
    )
    assert not torch.allclose(first.last.weight[0], other.last.weight[0])
    assert torch.equal(first.last.weight[1], other.last.weight[1])


def test_train_students__a_shut_gate_leaves_the_truth_alone(dataset: WindowDataset) -> None:
    plans = [PLANS[0], PLANS[1]]
    shut, _ = train_students(dataset, two_sets(dataset), plans, small_recipe(), seed=0, gate=torch.zeros(1, 1, 1))
    assert torch.equal(shut.last.weight[0], shut.last.weight[1])


def test_train_students__each_set_window_and_hour_has_its_gate(dataset: WindowDataset) -> None:
    sets, gate = two_sets(dataset), torch.ones(2, len(dataset.train), dataset.horizon)
    gate[0] = gate[1, 5:, 0] = 0.0
    spoiled = sets[1].log_probabilities.clone()
    spoiled[5:, 0] = random_labels(dataset, seed=9).log_probabilities[5:, 0]
    base = [PLANS[0], PLANS[0].model_copy(update={"soft": 0}), PLANS[1]]
    changed = [sets[0], SoftLabels(sets[1].origins, spoiled)]
    result, _ = train_students(dataset, changed, base, small_recipe(), seed=0, gate=gate)
    expected, _ = train_students(dataset, sets, base, small_recipe(), seed=0, gate=gate)
    torch.testing.assert_close(result.last.weight, expected.last.weight)
    torch.testing.assert_close(result.last.weight[1], result.last.weight[2])
    assert not torch.allclose(result.last.weight[0], result.last.weight[2])


@pytest.mark.parametrize("head", ["quantiles", "point"])
def test_train_students__every_head_together_equals_one_by_one(dataset: WindowDataset, head: Head) -> None:
    recipe = small_recipe(head=head)
    together, progress = train_students(dataset, two_sets(dataset), PLANS, recipe, seed=0)
    for member, plan in enumerate(PLANS):
        alone, of_one = train_students(dataset, two_sets(dataset), [plan], recipe, seed=0)
        assert progress.best_loss[member] == pytest.approx(of_one.best_loss[0], rel=1e-4)
        torch.testing.assert_close(together.last.weight[member], alone.last.weight[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together.last.weight[0], together.last.weight[1])


@pytest.mark.parametrize("head", ["quantiles", "point"])
def test_train_students__a_student_of_every_head_learns_what_its_teacher_forecasts(
    dataset: WindowDataset, head: Head
) -> None:
    budget = BUDGET.model_copy(update={"epochs": 40, "patience": 40})
    recipe, plan = small_recipe(student_training=budget, head=head), StudentPlan(alpha=1.0, dropout=0.0)
    _, progress = train_students(dataset, [same_every_hour(dataset)], [plan], recipe, seed=0)
    assert progress.history[-1]["train"][0] < 0.1 * progress.history[0]["train"][0]


@pytest.fixture(scope="module")
def alone() -> WindowDataset:
    """A dataset without observed columns beside the target, as a recursive student needs it."""
    return dataset_of(target_alone(synthetic_panel([160])), train_hours=100)


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_train_students__recursive_together_equals_one_by_one(alone: WindowDataset, head: Head) -> None:
    recipe = small_recipe(head=head, recursive=True)
    together, progress = train_students(alone, two_sets(alone), PLANS, recipe, seed=0)
    for member, plan in enumerate(PLANS):
        single, of_one = train_students(alone, two_sets(alone), [plan], recipe, seed=0)
        assert progress.best_loss[member] == pytest.approx(of_one.best_loss[0], rel=1e-4)
        torch.testing.assert_close(together.last.weight[member], single.last.weight[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together.last.weight[0], together.last.weight[1])


PERIOD_HOURS = 17  # so that the calendar does not give it away
NOISE = 0.3


def test_train_students__errors_of_a_recursive_student_build_up_less_than_in_a_twin_of_the_next_hour() -> None:
    """A noisy sine, and a teacher who knows it without its noise."""
    clean = torch.sin(2 * math.pi * torch.arange(500) / PERIOD_HOURS)
    noise = NOISE * torch.randn(500, generator=torch.Generator().manual_seed(0))
    panel = replace(synthetic_panel([500]), observed=(clean + noise)[:, None])
    dataset = dataset_of(panel, train_hours=350, lookback=3, horizon=10)
    middle = (dataset.edges()[1:] + dataset.edges()[:-1]) / 2
    distance = clean[dataset.train[:, None] + torch.arange(10)].unsqueeze(-1) - middle
    soft = SoftLabels(dataset.train, (-(distance**2) / (2 * NOISE**2)).log_softmax(dim=-1))
    budget = Budget(epochs=15, patience=15, batch_size=64, learning_rate=0.01, dropout=0.0)

    def rmse(alpha: float, decay: float) -> Tensor:
        recipe = small_recipe(head="point", recursive=True, horizon_decay=decay, student_training=budget)
        student, _ = train_students(dataset, [soft], [StudentPlan(alpha=alpha, dropout=0.0)], recipe, seed=0)
        mean, std = dataset.scale()
        with torch.no_grad():
            forecast = student(*dataset.student_inputs(dataset.validation)).squeeze() * std + mean
        return (forecast - dataset.truth(dataset.validation)).square().mean(dim=0).sqrt()

    taught, next_hour = rmse(0.9, 1.0), rmse(0.0, 1e-6)
    # Three noisy hours make a step that damps the wave, and a roll-out that ends at the mean: an error of √(½ + 0.09).
    assert next_hour[-1] == pytest.approx(math.sqrt(0.5 + NOISE**2), rel=0.15)
    assert taught[-1] < 0.8 * next_hour[-1]
    assert taught[-1] - taught[0] < 0.5 * (next_hour[-1] - next_hour[0])
    assert taught.min() > NOISE  # the noise is nobody's to foretell


@pytest.mark.parametrize("head", ["categorical", "point"])
def test_train_students__a_vanishing_decay_trains_a_recursive_twin_on_the_next_hour_alone(
    alone: WindowDataset, head: Head
) -> None:
    """The weights are those of a network that has no further hours."""
    budget = BUDGET.model_copy(update={"epochs": 1})
    recipe = small_recipe(head=head, recursive=True, horizon_decay=1e-12, student_training=budget)
    result, _ = train_students(alone, [uniform_labels(alone)], [TWIN], recipe, seed=0)
    short = alone.shortened(1)
    plain = small_recipe(head=head, student_training=budget)
    expected, _ = train_students(short, [uniform_labels(short)], [TWIN], plain, seed=0)
    assert result.config.horizon == 2
    torch.testing.assert_close(result.last.weight, expected.last.weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("plans", [[], [StudentPlan(soft=2)]], ids=["no plan", "no such set"])
def test_train_students__refuses_plans_that_it_cannot_teach(dataset: WindowDataset, plans: list[StudentPlan]) -> None:
    with pytest.raises(ValueError, match="can't be taught from 2 sets of soft labels"):
        train_students(dataset, two_sets(dataset), plans, small_recipe(), seed=0)


@pytest.mark.parametrize("name", list(HIDDEN_STATE_TERMS))
def test_train_students__refuses_terms_without_states(dataset: WindowDataset, name: str) -> None:
    plan = StudentPlan(alpha=0.5, terms=Terms(**{name: 5.0}))
    with pytest.raises(ValueError, match="a plan's terms need the teacher's states, and none are given"):
        train_students(dataset, [random_labels(dataset)], [plan], small_recipe(), seed=0)


def test_train_students__refuses_soft_labels_that_lack_a_window(dataset: WindowDataset) -> None:
    short = random_labels(dataset, dataset.train[3:])
    with pytest.raises(ValueError, match=f"3 of {len(dataset.train)} windows have no soft labels"):
        train_students(dataset, [short], [StudentPlan()], small_recipe(), seed=0)


def part_without_target(dataset: WindowDataset) -> WindowDataset:
    """The same dataset where the target of three hours is missing; windows that only lack these come along."""
    panel = replace(dataset.panel, observed=dataset.panel.observed.clone())
    panel.observed[[20, 40, 60], 0] = torch.nan
    span = Span(START, START + dt.timedelta(hours=100))
    unlabelled = window_origins(panel, span, lookback=dataset.lookback, horizon=dataset.horizon, labelled=False)
    return replace(dataset_of(panel, train_hours=100), unlabelled=unlabelled)


def test_train_students__soft_labels_teach_windows_without_a_target(dataset: WindowDataset) -> None:
    whole = part_without_target(dataset)
    # Each missing hour is the first or the second hour ahead of a window whose past is there.
    assert whole.unlabelled.tolist() == [19, 20, 39, 40, 59, 60]
    plans = [StudentPlan(alpha=alpha, dropout=0.0) for alpha in (1.0, 0.5, 0.0)]
    soft = random_labels(whole)
    changed = soft.log_probabilities.clone()
    changed[-6:] = random_labels(whole, seed=1).log_probabilities[-6:]
    first, second = (
        train_students(whole, [labels], plans, small_recipe(), seed=0)[0].last.weight
        for labels in (soft, SoftLabels(soft.origins, changed))
    )
    assert not torch.allclose(first[0], second[0], rtol=1e-3)
    assert not torch.allclose(first[1], second[1], rtol=1e-3)
    assert torch.equal(first[2], second[2])


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_train_students__a_missing_target_teaches_nothing(dataset: WindowDataset, head: Head) -> None:
    whole = part_without_target(dataset)
    everything = BUDGET.model_copy(update={"batch_size": 1024, "epochs": 1})
    recipe, soft = small_recipe(head=head, student_training=everything), [random_labels(whole)]
    with_them, _ = train_students(whole, soft, [TWIN], recipe, seed=0)
    assert with_them.last.weight.isfinite().all()
    # An hour that has a target still teaches, though the other hour of its window has none.
    panel = replace(whole.panel, observed=whole.panel.observed.clone())
    panel.observed[21, 0] += 3.0
    moved, _ = train_students(replace(whole, panel=panel), soft, [TWIN], recipe, seed=0)
    assert not torch.equal(moved.last.weight, with_them.last.weight)


def test_forecast_students__one_member_after_the_other(dataset: WindowDataset) -> None:
    plans = [StudentPlan(seed=seed, dropout=0.0) for seed in (0, 1)]
    students, _ = train_students(dataset, [random_labels(dataset)], plans, small_recipe(), seed=0)
    forecasts = list(forecast_students(students, dataset, dataset.validation, chunk=7))
    for member, forecast in enumerate(forecasts):
        alone = select_members(students, dataset.scalers, [member])
        [expected] = forecast_students(alone, dataset, dataset.validation)
        np.testing.assert_allclose(forecast.quantiles, expected.quantiles, rtol=1e-5)
        assert forecast.mean.shape == (len(dataset.validation), dataset.horizon)
    assert not np.allclose(forecasts[0].mean, forecasts[1].mean)


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_forecast_students__makes_float64_on_the_cpu_alone(dataset: WindowDataset, head: Head) -> None:
    plan, recipe = StudentPlan(alpha=0.0), small_recipe(head=head)
    student, _ = train_students(dataset, [uniform_labels(dataset)], [plan], recipe, seed=0)
    with Float64OnCpu() as watch:
        list(forecast_students(student, dataset, dataset.validation))
    assert watch.made == 2  # mean and quantiles


def test_forecast_students__is_in_float64(dataset: WindowDataset) -> None:
    [forecast, _] = forecast_students(small_network(dataset), dataset, dataset.validation)
    assert (forecast.mean.dtype, forecast.quantiles.dtype) == (np.float64, np.float64)


@pytest.mark.parametrize("head", ["categorical", "quantiles", "point"])
def test_train_students__stops_by_the_soft_labels_of_the_validation_part(dataset: WindowDataset, head: Head) -> None:
    recipe, held_out = small_recipe(head=head, stop="teacher"), random_labels(dataset, dataset.validation, seed=5)
    plans, soft = [PLANS[0].model_copy(update={"soft": 0}), TWIN], two_sets(dataset)[:1]
    by_teacher, progress = train_students(dataset, soft, plans, recipe, seed=0, held_out=[held_out], chunk=7)
    _, by_truth = train_students(dataset, soft, plans, small_recipe(head=head), seed=0)
    twins = [[row["validation"][1] for row in each.history] for each in (progress, by_truth)]
    assert twins[0] == pytest.approx(twins[1], rel=1e-5)
    assert progress.history[0]["validation"][0] != pytest.approx(by_truth.history[0]["validation"][0], rel=1e-2)
    # The best epoch's loss, again from the weights that were kept.
    validated = replace(dataset, train=dataset.validation)
    objective = make_objective(
        validated, [held_out], [plans[0].model_copy(update={"alpha": 1.0})], recipe, gate=None, states=None
    )
    with torch.no_grad():
        loss = objective(select_members(by_teacher, dataset.scalers, [0]).eval(), dataset.validation)
    assert progress.best_loss[0] == pytest.approx(float(loss), rel=1e-4)


def test_train_students__to_stop_by_soft_labels_they_must_be_there(dataset: WindowDataset) -> None:
    recipe = small_recipe(stop="teacher")
    with pytest.raises(ValueError, match="stop by the soft labels of the validation part, and none are given"):
        train_students(dataset, two_sets(dataset), PLANS, recipe, seed=0)
    twins, _ = train_students(dataset, two_sets(dataset), [TWIN], recipe, seed=0)
    expected, _ = train_students(dataset, two_sets(dataset), [TWIN], small_recipe(), seed=0)
    assert torch.equal(twins.last.weight, expected.last.weight)
