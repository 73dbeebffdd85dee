import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.tutelage.builders import dataset_of, random_labels, small_recipe, synthetic_panel
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.ensemble import ensemble_labels, train_ensemble
from tutelage.distil.plans import make_plan
from tutelage.distil.recipe import Views
from tutelage.distil.soft_labels import SoftLabels
from tutelage.distil.students import train_students
from tutelage.forecasts import Forecasts, crps
from tutelage.judge.study import labels_crps, score_group
from tutelage.judge.trials import Space, group_trials, list_trials
from tutelage.model.heads import forecast_of

SEEN = Views(future_sigma=1.0, minutes_hours=0, auxiliary=False)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([240]), train_hours=160, validation_hours=40)


def test_score_group__is_the_crps_of_the_same_student_trained_alone(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=SEEN)
    space = Space(alpha=(0.5, 1.0), dropout=(0.0, 0.3), future_sigma=(1.0,))
    trials = list_trials(recipe, space, max_trials=None, seed=0)
    teacher, _ = train_ensemble(dataset, recipe, seed=0)
    soft = ensemble_labels(teacher, dataset, dataset.train, recipe, seed=0)
    [twins, taught] = group_trials(trials)
    scores = score_group(dataset, [trial.recipe for trial in taught.trials], soft=soft, seeds=[3, 8], seed=1)
    without = score_group(dataset, [trial.recipe for trial in twins.trials], soft=None, seeds=[3, 8], seed=1)
    assert (scores.shape, without.shape) == ((6, 2), (2, 2))
    plan = make_plan(taught.trials[2].recipe, seed=8)
    student_and_twin, _ = train_students(dataset, [soft], [plan, plan.twin], recipe, seed=1)
    outputs = student_and_twin(*dataset.student_inputs(dataset.test)).detach()
    quantiles = forecast_of(outputs, "categorical", edges=dataset.edges(), scale=dataset.scale())[1].double().numpy()
    actual = dataset.truth(dataset.test).double().numpy()
    alone = [float(crps(Forecasts(q.mean(axis=-1), q), actual).mean()) for q in quantiles]
    assert taught.trials[2].settings["dropout"] == 0.0
    np.testing.assert_allclose([scores[2, 1], without[0, 1]], alone, rtol=1e-5)


def test_score_group__refuses_what_can_not_train_together(dataset: WindowDataset) -> None:
    untaught = small_recipe(alpha=0.0)
    slow = untaught.override({"student.training.learning_rate": 1e-4})
    with pytest.raises(ValueError, match="can't train side by side"):
        score_group(dataset, [untaught, slow], soft=None, seeds=[0], seed=0)
    with pytest.raises(ValueError, match="without soft labels"):
        score_group(dataset, [small_recipe()], soft=None, seeds=[0], seed=0)


def test_labels_crps__is_low_where_the_teacher_knows(dataset: WindowDataset) -> None:
    truth = functional.one_hot(dataset.labels(dataset.validation), 8).float().clamp(min=1e-12).log()
    uniform = torch.full_like(truth, 1 / 8).log()
    knows, guesses = (labels_crps(SoftLabels(dataset.validation, each), dataset) for each in (truth, uniform))
    assert knows < 0.3 * guesses


def test_labels_crps__is_of_the_windows_that_the_labels_are_of(dataset: WindowDataset) -> None:
    labels = random_labels(dataset, dataset.validation)
    parts = [SoftLabels(labels.origins[rows], labels.log_probabilities[rows]) for rows in (slice(10), slice(10, None))]
    first, rest = (labels_crps(part, dataset) for part in parts)
    whole = (10 * first + (len(labels.origins) - 10) * rest) / len(labels.origins)
    assert labels_crps(labels, dataset) == pytest.approx(whole)
