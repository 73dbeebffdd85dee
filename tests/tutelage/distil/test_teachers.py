from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import dataset_of, small_recipe, synthetic_panel
from tutelage.distil.boosted import BoostedTeacher, boosted_labels, train_boosted
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.ensemble import ensemble_labels, ensemble_states, train_ensemble
from tutelage.distil.pipeline import train_teachers
from tutelage.distil.recipe import UNPRIVILEGED, Views
from tutelage.distil.soft_labels import label_losses
from tutelage.distil.teachers import (
    label_part,
    label_taught,
    label_windows,
    list_teachers,
    progress_of,
    quantile_labels,
    states_taught,
    train_teacher,
    weigh_teachers,
)
from tutelage.distil.views import shuffle_windows
from tutelage.forecasts import QUANTILE_LEVELS, Forecasts
from tutelage.model.kinds import Kind
from tutelage.model.networks import Forecaster
from tutelage.model.training import Progress

PAST = Views(future_sigma=None, minutes_hours=2, auxiliary=True)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([300]), train_hours=200, horizon=4)


def flat_forecast(dataset: WindowDataset, origins: Tensor) -> Forecasts:
    """Of every hour uniform between 0 and 1, shifted by one for each hour ahead, and with quantiles out of order."""
    levels = np.array(QUANTILE_LEVELS)[::-1]
    quantiles = np.arange(dataset.horizon)[None, :, None] + np.broadcast_to(levels, (len(origins), 1, len(levels)))
    return Forecasts(quantiles.mean(axis=-1), quantiles)


def test_train_teacher__is_of_the_recipes_kind(dataset: WindowDataset) -> None:
    teacher, _ = train_teacher(dataset, small_recipe(), seed=3)
    expected, _ = train_ensemble(dataset, small_recipe(), seed=3)
    assert isinstance(teacher, Forecaster)
    assert torch.equal(teacher.last.weight, expected.last.weight)
    labels = label_windows(teacher, dataset, dataset.validation, small_recipe(), seed=3)
    of_ensemble = ensemble_labels(expected, dataset, dataset.validation, small_recipe(), seed=3)
    assert torch.equal(labels.log_probabilities, of_ensemble.log_probabilities)


def test_train_teacher__trees_teach_as_networks_do(dataset: WindowDataset) -> None:
    recipe, reported = small_recipe(kind="boosted"), []
    teacher, progress = train_teacher(dataset, recipe, seed=3, on_epoch=reported.append)
    assert isinstance(teacher, BoostedTeacher)
    expected = boosted_labels(train_boosted(dataset, recipe, seed=3), dataset, dataset.train, recipe, seed=3)
    labels = label_windows(teacher, dataset, dataset.train, recipe, seed=3)
    assert torch.equal(labels.log_probabilities, expected.log_probabilities)
    assert reported == [progress]
    assert progress.done
    assert progress.history[0]["train"] == pytest.approx([label_losses(expected, dataset).mean().item()])
    assert progress.best_loss == progress.history[0]["validation"]


def test_quantile_labels__golden(dataset: WindowDataset) -> None:
    coarse = replace(dataset, bins=type(dataset.bins)((-1.0, 0.5, 1.25, 2.0, 9.0)))
    labels = quantile_labels(flat_forecast, coarse, dataset.train[:3])
    # Uniform on [0, 1], [1, 2], [2, 3] and [3, 4]; beyond 0.01 and 0.99 all belongs to the bins there.
    expected = torch.tensor([[0.5, 0.5, 0, 0], [0, 0.25, 0.75, 0], [0, 0, 0, 1], [0, 0, 0, 1]]).expand(3, 4, 4)
    torch.testing.assert_close(labels.log_probabilities.exp(), expected, rtol=0, atol=1e-5)
    assert torch.equal(labels.origins, dataset.train[:3])
    every = label_windows(flat_forecast, coarse, dataset.train, small_recipe(), seed=0)
    assert every.log_probabilities.isfinite().all()


def test_progress_of__a_model_that_exists_already_has_one_epoch(dataset: WindowDataset) -> None:
    progress = progress_of(flat_forecast, dataset, small_recipe(), seed=0)
    assert isinstance(progress, Progress)
    assert (progress.epoch, progress.done, progress.best_epoch) == (1, True, [1])
    assert progress.best_loss[0] > np.log(len(dataset.bins))  # it knows nothing of these values


@pytest.mark.parametrize("kind", ["mlp", "boosted"])
def test_label_part__each_hour_is_from_the_shortest_teacher_that_reaches_it(dataset: WindowDataset, kind: Kind) -> None:
    recipe = small_recipe(kind=kind, horizons=(1, 3))
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    assert [(spec.name, spec.horizon) for spec in teachers] == [("teacher-1h", 1), ("teacher-3h", 3), ("teacher", 4)]
    labels = label_part(teachers, dataset, dataset.validation, seed=0)
    assert torch.equal(labels.origins, dataset.validation)
    for (spec, teacher), hours in zip(teachers.items(), (slice(0, 1), slice(1, 3), slice(3, 4)), strict=True):
        alone = label_windows(teacher, dataset.shortened(spec.horizon), dataset.validation, recipe, seed=0)
        assert torch.equal(labels.log_probabilities[:, hours], alone.log_probabilities[:, hours])


def test_label_part__of_one_teacher_is_what_it_forecasts(dataset: WindowDataset) -> None:
    recipe = small_recipe()
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    (teacher,) = teachers.values()
    labels = label_part(teachers, dataset, dataset.train, seed=0)
    alone = label_windows(teacher, dataset, dataset.train, recipe, seed=0)
    assert torch.equal(labels.log_probabilities, alone.log_probabilities)


def test_label_part__teachers_of_several_views_are_averaged_as_probabilities(dataset: WindowDataset) -> None:
    recipe = small_recipe(more_views=(PAST, UNPRIVILEGED), horizons=(2,))
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    assert [spec.name for spec in teachers] == [
        *("teacher-2h", "teacher"),
        *("teacher-2-2h", "teacher-2"),
        *("teacher-3-2h", "teacher-3"),
    ]
    probabilities = label_part(teachers, dataset, dataset.validation, seed=0).log_probabilities.exp()
    for hours, horizon in ((slice(0, 2), 2), (slice(2, 4), 4)):
        of_horizon = [(spec, teacher) for spec, teacher in teachers.items() if spec.horizon == horizon]
        assert [spec.recipe.teacher.views for spec, _ in of_horizon] == [Views(), PAST, UNPRIVILEGED]
        first, second, third = (
            ensemble_labels(
                teacher, dataset.shortened(horizon), dataset.validation, spec.recipe, seed=0
            ).log_probabilities.exp()[:, hours]
            for spec, teacher in of_horizon
            if isinstance(teacher, Forecaster)
        )
        torch.testing.assert_close(probabilities[:, hours], (first + second + third) / 3)


def test_list_teachers__a_registered_model_is_one_teacher_and_equal_views_are_one() -> None:
    assert len(list_teachers(small_recipe(registered_model="home-24h/3", more_views=(PAST, UNPRIVILEGED)), 24)) == 1
    assert len(list_teachers(small_recipe(more_views=(Views(), UNPRIVILEGED, UNPRIVILEGED)), 24)) == 2


def test_list_teachers__the_relative_future_is_shorter_too() -> None:
    with pytest.raises(
        ValueError, match=r"^recipe\.teacher\.views\.relative_hours: 4 h is not shorter than the horizon"
    ):
        list_teachers(small_recipe(views=Views(relative_hours=4)), 4)


def test_list_teachers__refuses_a_teacher_that_is_not_shorter() -> None:
    with pytest.raises(ValueError, match=r"^recipe\.teacher\.horizons: 4 h is not shorter than the horizon, 4 h$"):
        list_teachers(small_recipe(horizons=(2, 4)), 4)


@pytest.mark.parametrize("placebo", [False, True])
def test_label_taught__has_the_training_part_as_it_was_trained_on(dataset: WindowDataset, placebo: bool) -> None:
    recipe = small_recipe(views=PAST.model_copy(update={"placebo": placebo}))
    teacher, _ = train_ensemble(dataset, recipe, seed=0)
    (spec,) = list_teachers(recipe, dataset.horizon)
    further = replace(dataset, train=dataset.train[:-9], unlabelled=dataset.train[-9:])
    labels, states = (each({spec: teacher}, further, seed=0) for each in (label_taught, states_taught))
    assert torch.equal(labels.origins, further.taught())
    for part, rows in ((further.train, slice(None, -9)), (further.unlabelled, slice(-9, None))):
        expected = ensemble_labels(teacher, dataset, part, recipe, seed=0)
        assert torch.equal(labels.log_probabilities[rows], expected.log_probabilities)
        of_part = ensemble_states(teacher, dataset, part, recipe, seed=0).hidden
        assert torch.equal(states.hidden[:, rows], of_part)


def test_states_taught__are_those_of_the_first_views_teacher_for_the_whole_horizon(dataset: WindowDataset) -> None:
    recipe = small_recipe(more_views=(PAST,), horizons=(2,))
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    [(spec, first)] = [item for item in teachers.items() if item[0].name == "teacher"]
    expected = ensemble_states(first, dataset, dataset.train, spec.recipe, seed=0)
    assert torch.equal(states_taught(teachers, dataset, seed=0).hidden, expected.hidden)


def test_states_taught__only_a_network_has_some(dataset: WindowDataset) -> None:
    (spec,) = list_teachers(small_recipe(), dataset.horizon)
    with pytest.raises(ValueError, match="only a network has hidden states"):
        states_taught({spec: flat_forecast}, dataset, seed=0)


@pytest.mark.parametrize("kind", ["mlp", "boosted"])
def test_label_part__in_the_relative_future_each_hour_is_the_teachers_next(dataset: WindowDataset, kind: Kind) -> None:
    view = PAST.model_copy(update={"relative_hours": 1})
    recipe = small_recipe(kind=kind, views=view)
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    [(spec, teacher)] = teachers.items()
    assert (spec.name, spec.horizon) == ("teacher", 1)
    labels = label_part(teachers, dataset, dataset.validation, seed=0).log_probabilities
    for hour in range(dataset.horizon):
        there = label_windows(teacher, dataset.shortened(1), dataset.validation + hour, recipe, seed=0)
        assert torch.equal(labels[:, hour], there.log_probabilities[:, 0])


def test_label_part__the_relative_future_ends_with_the_horizon(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=Views(future_sigma=0.0, minutes_hours=0, auxiliary=False, relative_hours=3))
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    labels = label_part(teachers, dataset, dataset.train, seed=0).log_probabilities
    place, origin = 7, int(dataset.train[7])
    panel = dataset.panel
    for changed, hours in ((origin + dataset.horizon, []), (origin + 2, [0, 1, 2, 3]), (origin - 1, [0, 1, 2, 3])):
        observed = panel.observed.clone()
        observed[changed:] += 1
        moved = replace(dataset, panel=replace(panel, observed=observed))
        again = label_part(teachers, moved, dataset.train, seed=0).log_probabilities
        different = (again != labels)[place].any(dim=-1)
        assert different.nonzero().flatten().tolist() == hours


def test_label_part__an_hour_that_the_relative_future_does_not_know_is_uniform(dataset: WindowDataset) -> None:
    view = Views(future_sigma=None, minutes_hours=0, auxiliary=False, relative_hours=1)
    recipe = small_recipe(views=view)
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    observed = dataset.panel.observed.clone()
    origin = int(dataset.validation[3])
    observed[origin + 1, 1] = torch.nan  # not the target
    gap = replace(dataset, panel=replace(dataset.panel, observed=observed))
    labels = label_part(teachers, gap, dataset.validation[3:4], seed=0).log_probabilities[0].exp()
    assert labels[:2].std(dim=-1).min() > 0.001
    torch.testing.assert_close(labels[2:], torch.full_like(labels[2:], 1 / len(dataset.bins)))


def test_label_part__a_placebo_stands_in_another_windows_future(dataset: WindowDataset) -> None:
    view = Views(future_sigma=None, minutes_hours=0, auxiliary=False, relative_hours=1)
    recipe = small_recipe(views=view)
    [(spec, teacher)] = train_teachers(dataset, recipe, seed=0).teachers.items()
    placebo = replace(spec, recipe=recipe.placebo)
    assert placebo.recipe.teacher.views.placebo
    shown = shuffle_windows(dataset.train, seed=0)
    labels, elsewhere = (
        label_part({each: teacher}, dataset, windows, seed=0).log_probabilities
        for each, windows in ((placebo, dataset.train), (spec, shown))
    )
    assert torch.equal(labels, elsewhere)


def test_weigh_teachers__who_knows_more_weighs_more(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=Views(future_sigma=0.1), more_views=(UNPRIVILEGED,), weights="likely")
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    weights = weigh_teachers([(teachers, dataset)], recipe, seed=0)
    assert weights is not None
    assert weigh_teachers([(teachers, dataset)], recipe.override({"teacher.weights": "equal"}), seed=0) is None
    assert list(weights) == ["teacher", "teacher-2"]
    np.testing.assert_allclose(np.sum(list(weights.values()), axis=0), 1, rtol=1e-6)
    assert np.mean(weights["teacher"]) > 0.6
    equal, weighed = (
        label_losses(label_part(teachers, dataset, dataset.validation, seed=0, weights=each), dataset).mean()
        for each in (None, weights)
    )
    assert weighed < equal
