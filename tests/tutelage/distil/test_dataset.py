from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tutelage.builders import (
    PROPERTY,
    dataset_of,
    hours_span,
    small_recipe,
    synthetic_panel,
    target_alone,
)
from tutelage.data.sizes import Sizes
from tutelage.data.windows import Parts, window_origins
from tutelage.distil.dataset import WindowDataset, fit_on, make_dataset
from tutelage.distil.recipe import UNPRIVILEGED, Views
from tutelage.distil.views import privileged_values
from tutelage.errors import DataError, GapsError, SpecError
from tutelage.model.heads import Bins
from tutelage.model.networks import Forecaster

LENGTHS = st.integers(1, 5)
LOOKBACK, HORIZON = 4, 2
FUTURE = Views(future_sigma=0.0, minutes_hours=0, auxiliary=False)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([160]), train_hours=100, lookback=LOOKBACK, horizon=HORIZON)


@PROPERTY
@given(LENGTHS, LENGTHS, st.integers(0, 20))
def test_student_inputs__observe_nothing_at_or_after_the_issue_time(lookback: int, horizon: int, place: int) -> None:
    panel = synthetic_panel([60])
    dataset = dataset_of(panel, train_hours=40, lookback=lookback, horizon=horizon)
    issued = dataset.train[place : place + 1]
    past, _ = dataset.student_inputs(issued)
    panel.observed[issued:] += 100.0
    assert torch.equal(dataset.student_inputs(issued)[0], past)
    panel.observed[issued - 1] += 100.0
    assert torch.equal(dataset.student_inputs(issued)[0][:, -1], past[:, -1] + 100.0)


def test_labels__are_the_bins_of_the_hours_ahead(dataset: WindowDataset) -> None:
    labels = dataset.labels(dataset.validation)
    edges = dataset.bins.edges[1:-1]
    for window, origin in enumerate(dataset.validation.tolist()):
        for lead in range(dataset.horizon):
            value = dataset.panel.observed[origin + lead, 0].item()
            assert labels[window, lead] == sum(value >= edge for edge in np.float32(edges))


def test_taught__are_the_training_windows_and_then_those_without_a_target(dataset: WindowDataset) -> None:
    assert torch.equal(dataset.taught(), dataset.train)
    further = replace(dataset, train=dataset.train[:-9], unlabelled=dataset.train[-9:])
    assert torch.equal(further.taught(), dataset.train)


def test_shortened__has_the_same_windows_and_their_first_hours(dataset: WindowDataset) -> None:
    short = dataset.shortened(1)
    assert torch.equal(short.train, dataset.train)
    assert torch.equal(short.truth(dataset.train), dataset.truth(dataset.train)[:, :1])


def test_fit_on__knows_the_hours_of_the_span_alone() -> None:
    panel = synthetic_panel([160])
    before = fit_on(panel, hours_span(0, 100), bins=8)
    panel.observed[100:] += 100.0
    assert fit_on(panel, hours_span(0, 100), bins=8) == before
    assert fit_on(panel, hours_span(0, 101), bins=8) != before
    assert len(before.bins) == 8
    assert before.bins.edges[-1] == panel.observed[:100, 0].max().item()


def test_fit_on__refuses_a_target_without_spread() -> None:
    panel = synthetic_panel([60])
    panel.observed[:, 0] = 3.0
    with pytest.raises(DataError, match="no bins can be cut"):
        fit_on(panel, hours_span(0, 60), bins=8)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_make_dataset__has_the_windows_of_each_part(unlabelled: bool) -> None:
    panel = synthetic_panel([160], missing=0.02)
    parts = Parts(train=hours_span(0, 80), validation=hours_span(80, 120), test=hours_span(120, 160))
    fitted = fit_on(panel, parts.train, bins=8)
    dataset = make_dataset(panel, parts, fitted, lookback=LOOKBACK, horizon=HORIZON, unlabelled=unlabelled)
    lengths = {"lookback": LOOKBACK, "horizon": HORIZON}
    for name in ("train", "validation", "test"):
        expected = window_origins(panel, getattr(parts, name), **lengths, start=parts.train.start)
        assert torch.equal(getattr(dataset, name), expected)
    without = window_origins(panel, parts.train, **lengths, labelled=False)
    assert len(without) > 0
    assert dataset.unlabelled.tolist() == (without.tolist() if unlabelled else [])
    assert (dataset.scalers, dataset.bins) == (fitted.scalers, fitted.bins)


def test_teacher_config__boosted_trees_have_none(dataset: WindowDataset) -> None:
    with pytest.raises(ValueError, match="boosted trees are not a network"):
        dataset.teacher_config(small_recipe(kind="boosted"))
    assert dataset.student_config(small_recipe(kind="boosted")).architecture == "mlp"


def test_teacher_config__is_as_wide_as_its_views(dataset: WindowDataset) -> None:
    views = Views(future_sigma=1.0, minutes_hours=3, auxiliary=True)
    recipe = small_recipe(views=views, kind="tcn", teacher_width=24, student_width=12)
    teacher, student = dataset.teacher_config(recipe), dataset.student_config(recipe)
    assert (teacher.privileged, student.privileged) == (HORIZON + 3 * 6 + 2 * LOOKBACK, 0)
    assert (teacher.width, student.width) == (24, 12)
    assert (teacher.architecture, student.architecture) == ("tcn", "mlp")


def test_student_config__of_a_recursive_student_holds_the_bins_means_and_no_teacher_is_recursive(
    dataset: WindowDataset,
) -> None:
    alone = replace(dataset, panel=target_alone(dataset.panel), bins=Bins((0.0, 2.0, 6.0)))
    recipe = small_recipe(recursive=True)
    config, (mean, std) = alone.student_config(recipe), alone.scale().tolist()
    assert config.recursive
    assert config.centres == pytest.approx([(1.0 - mean) / std, (4.0 - mean) / std])
    assert alone.student_config(recipe.override({"student.head": "point"})).centres == ()
    assert alone.teacher_config(recipe) == alone.teacher_config(small_recipe())
    assert not alone.teacher_config(recipe).recursive


def test_student_config__a_recursive_student_has_no_columns_that_nobody_forecasts(dataset: WindowDataset) -> None:
    with pytest.raises(SpecError, match=r"recipe\.student\.recursive: a recursive .* 1 more observed columns$"):
        dataset.student_config(small_recipe(recursive=True))


def test_teacher_inputs__a_teacher_may_see_nothing_more(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=UNPRIVILEGED)
    teacher = Forecaster(dataset.teacher_config(recipe), dataset.scalers, 2)
    logits = teacher(*dataset.teacher_inputs(dataset.train, recipe, torch.Generator()))
    assert torch.equal(logits, teacher(*dataset.student_inputs(dataset.train)))


def test_privileged_origins__stay_within_their_part(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=FUTURE.model_copy(update={"placebo": True}))
    shown = dataset.privileged_origins(recipe, [dataset.train, dataset.validation], seed=0)
    assert shown is not None
    for part in (dataset.train, dataset.validation):
        assert sorted(shown[part].tolist()) == part.tolist()
    assert dataset.privileged_origins(small_recipe(views=FUTURE), [dataset.train], seed=0) is None


def test_teacher_inputs__a_placebo_sees_its_past_and_the_privilege_of_another_window(dataset: WindowDataset) -> None:
    placebo = small_recipe(views=FUTURE.model_copy(update={"placebo": True}))
    teacher = Forecaster(dataset.teacher_config(placebo), dataset.scalers, 2).eval()
    shown = dataset.privileged_origins(placebo, [dataset.train], seed=0)
    assert shown is not None
    logits = teacher(*dataset.teacher_inputs(dataset.train, placebo, torch.Generator(), shown=shown))
    of_others = privileged_values(
        dataset.panel,
        shown[dataset.train],
        FUTURE,
        dataset.scalers,
        lookback=LOOKBACK,
        horizon=HORIZON,
        generator=torch.Generator(),
    )
    assert torch.equal(logits, teacher(*dataset.student_inputs(dataset.train), of_others))


def test_blocks__each_issue_time_is_held_out_once_and_no_target_hour_is_learned_from() -> None:
    panel = synthetic_panel([200, 150], starts=[0, 30])
    dataset = dataset_of(panel, train_hours=120, validation_hours=30, lookback=LOOKBACK, horizon=HORIZON)
    every = torch.cat([dataset.train, dataset.validation])
    blocks = dataset.blocks(4)
    assert sorted(torch.cat([block.validation for block in blocks]).tolist()) == sorted(every.tolist())
    hours = [set(panel.step[block.validation].tolist()) for block in blocks]
    assert sum(map(len, hours)) == len(set.union(*hours))
    ahead = torch.arange(HORIZON)
    for block in blocks:
        held_out, learned = (
            set(panel.step[part[:, None] + ahead].flatten().tolist()) for part in (block.validation, block.train)
        )
        assert not held_out & learned
        assert block.test is dataset.test
        lost = set(every.tolist()) - set(block.train.tolist()) - set(block.validation.tolist())
        assert len(lost) <= 2 * 2 * (HORIZON - 1)  # at both ends, of two series


def test_blocks__too_few_windows() -> None:
    dataset = dataset_of(synthetic_panel([20]), train_hours=10, validation_hours=8)
    with pytest.raises(GapsError, match="windows are too few for 30 blocks"):
        dataset.blocks(30)


def test_whole__learns_from_the_validation_part_too() -> None:
    dataset = dataset_of(synthetic_panel([100]), train_hours=60, validation_hours=20)
    assert torch.equal(dataset.whole().taught(), torch.cat([dataset.train, dataset.validation]))


def test_make_dataset__takes_no_more_windows_of_several_series_than_it_can_learn_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tutelage.distil.dataset.MOST_WINDOWS", 200)
    panel = synthetic_panel([600, 600])
    whole = dataset_of(panel, train_hours=400, validation_hours=100)
    assert len(whole.train) > 700, "one series, as far as the panel says"
    sizes = Sizes({"a": 1.0, "b": 1.0}, spread=1.0, columns=("power_kw",))
    few = dataset_of(replace(panel, names=("a", "b"), sizes=sizes), train_hours=400, validation_hours=100)
    assert [len(part) <= most for part, most in ((few.train, 200), (few.validation, 50), (few.test, 200))] == [True] * 3
    for part in (few.train, few.validation, few.test):
        assert set(few.panel.names_at(part)) == {"a", "b"}
        assert len(part) > 30
