from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import dataset_of, small_recipe, synthetic_panel
from tutelage.data.windows import Panel
from tutelage.distil import dataset as dataset_module
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.ensemble import (
    COMPANION,
    average_states,
    coupled_loss,
    ensemble_labels,
    ensemble_states,
    train_ensemble,
)
from tutelage.distil.losses import hard_label_loss
from tutelage.distil.recipe import UNPRIVILEGED, Recipe, Views
from tutelage.distil.soft_labels import label_losses
from tutelage.distil.views import privileged_values
from tutelage.model.architectures import States
from tutelage.model.kinds import Architecture, Budget
from tutelage.model.layers import first_weights
from tutelage.model.networks import Forecaster
from tutelage.model.training import Progress

BUDGET = Budget(epochs=15, patience=15, batch_size=32, learning_rate=0.01, dropout=0.0)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([160]), train_hours=100)


@pytest.fixture(scope="module")
def teacher(dataset: WindowDataset) -> Forecaster:
    return train_ensemble(dataset, small_recipe(), seed=0)[0]


def labels(teacher: Forecaster, dataset: WindowDataset, recipe: Recipe, *, seed: int = 0, chunk: int = 1024) -> Tensor:
    """The log-probabilities of the training part."""
    return ensemble_labels(teacher, dataset, dataset.train, recipe, seed=seed, chunk=chunk).log_probabilities


def unforeseeable() -> WindowDataset:
    """The next hour is noise to a student; the teacher's minutes and its sensors foretell it."""
    panel = synthetic_panel([500])
    following = panel.observed[:, 0].roll(-1)
    panel.auxiliary[:, 1] = 10 * following
    panel.minutes[:] = following[:, None]
    return dataset_of(panel, train_hours=300, horizon=1)


@pytest.mark.parametrize(
    "views",
    [
        UNPRIVILEGED.model_copy(update={"future_sigma": 0.3}),
        UNPRIVILEGED.model_copy(update={"minutes_hours": 2}),
        UNPRIVILEGED.model_copy(update={"auxiliary": True}),
    ],
    ids=["future", "minutes", "auxiliary"],
)
def test_train_ensemble__privilege_foretells_what_the_past_does_not(views: Views) -> None:
    dataset = unforeseeable()
    _, unprivileged = train_ensemble(dataset, small_recipe(views=UNPRIVILEGED, teacher_training=BUDGET), seed=0)
    _, privileged = train_ensemble(dataset, small_recipe(views=views, teacher_training=BUDGET), seed=0)
    assert max(privileged.best_loss) < 0.8 * min(unprivileged.best_loss)
    assert min(unprivileged.best_loss) > 0.95 * np.log(len(dataset.bins))  # no better than a uniform guess


def test_train_ensemble__a_placebo_foretells_nothing() -> None:
    dataset = unforeseeable()
    views = UNPRIVILEGED.model_copy(update={"auxiliary": True, "placebo": True})
    _, placebo = train_ensemble(dataset, small_recipe(views=views, teacher_training=BUDGET), seed=0)
    assert min(placebo.best_loss) > 0.95 * np.log(len(dataset.bins))


def test_ensemble_labels__of_a_placebo_are_what_it_forecast_in_training() -> None:
    dataset = unforeseeable()
    views = UNPRIVILEGED.model_copy(update={"auxiliary": True, "placebo": True})
    recipe = small_recipe(views=views)
    teacher, _ = train_ensemble(dataset, recipe, seed=0)
    shown = dataset.privileged_origins(recipe, [dataset.train, dataset.validation], seed=0)
    with torch.no_grad():
        logits = teacher(*dataset.teacher_inputs(dataset.train, recipe, torch.Generator(), shown=shown))
    torch.testing.assert_close(labels(teacher, dataset, recipe).exp(), logits.softmax(dim=-1).mean(dim=0))


def test_train_ensemble__follows_the_seed(dataset: WindowDataset, teacher: Forecaster) -> None:
    again, _ = train_ensemble(dataset, small_recipe(), seed=0)
    other, _ = train_ensemble(dataset, small_recipe(), seed=1)
    assert torch.equal(again.last.weight, teacher.last.weight)
    assert not torch.equal(other.last.weight, teacher.last.weight)


def test_train_ensemble__its_validation_loss_uses_one_fixed_draw_of_noise(dataset: WindowDataset) -> None:
    recipe = small_recipe()
    teacher, progress = train_ensemble(dataset, recipe, seed=5)
    with torch.no_grad():
        draw = torch.Generator().manual_seed(5)
        logits = teacher(*dataset.teacher_inputs(dataset.validation, recipe, draw))
    assert hard_label_loss(logits, dataset.labels(dataset.validation)).tolist() == progress.best_loss


def test_ensemble_labels__average_probabilities_over_members_and_draws(
    dataset: WindowDataset, teacher: Forecaster
) -> None:
    recipe = small_recipe(noise_draws=3)
    soft = labels(teacher, dataset, recipe, seed=4)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        draws = [teacher(*dataset.teacher_inputs(dataset.train, recipe, generator)).softmax(dim=-1) for _ in range(3)]
    expected = sum(member for draw in draws for member in draw) / (3 * 2)
    torch.testing.assert_close(soft.exp(), expected)
    torch.testing.assert_close(soft.exp().sum(dim=-1), torch.ones(len(dataset.train), dataset.horizon))


def test_ensemble_labels__follow_the_seed(dataset: WindowDataset, teacher: Forecaster) -> None:
    first, again, other = (labels(teacher, dataset, small_recipe(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(again, first)
    assert not torch.allclose(other, first)


def test_ensemble_labels__in_chunks_have_the_order_of_the_windows(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=UNPRIVILEGED)
    teacher, _ = train_ensemble(dataset, recipe, seed=0)
    whole, parts = (labels(teacher, dataset, recipe, chunk=chunk) for chunk in (1024, 7))
    torch.testing.assert_close(parts, whole)
    assert torch.equal(ensemble_labels(teacher, dataset, dataset.train, recipe, seed=0).origins, dataset.train)


def sigmas_in_training(dataset: WindowDataset, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The noise of the views, call by call of the teacher's training: five batches an epoch, then validation."""
    seen = []

    def noted(panel: Panel, origins: Tensor, views: Views, *rest: object, **options: object) -> Tensor:
        seen.append(views.after(1.0).future_sigma)
        return privileged_values(panel, origins, views, *rest, **options)

    monkeypatch.setattr(dataset_module, "privileged_values", noted)
    train_ensemble(dataset, recipe, seed=0)
    return seen


def test_train_ensemble__noise_goes_to_its_end_over_the_epochs(
    dataset: WindowDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = Views(future_sigma=4.0, future_sigma_end=1.0)
    sigmas = sigmas_in_training(dataset, small_recipe(views=views), monkeypatch)
    batches = len(dataset.train.split(32))
    expected = [[4.0] * batches + [1.0], [3.0] * batches + [1.0], [2.0] * batches + [1.0], [1.0] * batches + [1.0]]
    assert sigmas == pytest.approx([sigma for epoch in expected for sigma in epoch])


@pytest.mark.parametrize(
    "leaves", [{"views": Views(future_sigma=4.0, future_sigma_end=1.0)}, {"coupling": 1.0}], ids=["noise", "companion"]
)
@pytest.mark.fault
def test_train_ensemble__a_killed_run_goes_on_with_its_noise_and_its_companion(
    dataset: WindowDataset, tmp_path: Path, leaves: dict[str, object]
) -> None:
    budget = Budget(epochs=8, patience=8, batch_size=32, learning_rate=3e-3, dropout=0.0)
    recipe = small_recipe(teacher_training=budget, **leaves)
    whole, _ = train_ensemble(dataset, recipe, seed=0)

    def kill(progress: Progress) -> None:
        if progress.epoch == 6:
            raise KeyboardInterrupt

    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(dataset, recipe, seed=0, checkpoint=path, on_epoch=kill)
    resumed, _ = train_ensemble(dataset, recipe, seed=0, checkpoint=path)
    assert torch.equal(resumed.last.weight, whole.last.weight)


def test_ensemble_labels__have_the_noise_of_the_schedules_end(dataset: WindowDataset, teacher: Forecaster) -> None:
    ended, plain = (
        small_recipe(views=views) for views in (Views(future_sigma=9, future_sigma_end=1), Views(future_sigma=1))
    )
    first, second = (labels(teacher, dataset, recipe) for recipe in (ended, plain))
    assert torch.equal(first, second)


def test_ensemble_states__are_the_members_side_by_side(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=Views(future_sigma=None, minutes_hours=2, auxiliary=True))
    teacher, _ = train_ensemble(dataset, recipe, seed=0)
    states = ensemble_states(teacher, dataset, dataset.train, recipe, seed=0, chunk=7)
    with torch.no_grad():
        first, second = teacher.hidden(*dataset.teacher_inputs(dataset.train, recipe, torch.Generator()))
    torch.testing.assert_close(states.hidden, torch.cat([first, second], dim=1)[None])
    assert states.tokens is None
    assert states.maps is None


@pytest.mark.parametrize("kind", ["patch", "inverted"])
def test_ensemble_states__of_transformers_have_the_students_tokens(dataset: WindowDataset, kind: Architecture) -> None:
    recipe = small_recipe(kind=kind, architecture=kind)
    teacher, _ = train_ensemble(dataset, recipe, seed=0)
    of_teacher = ensemble_states(teacher, dataset, dataset.train, recipe, seed=0)
    student = Forecaster(dataset.student_config(recipe), dataset.scalers, 1).eval()
    with torch.no_grad():
        of_student = student.states(*dataset.student_inputs(dataset.train))
    assert of_student.tokens is not None
    assert of_student.maps is not None
    assert of_teacher.tokens is not None
    assert of_teacher.maps is not None
    tokens = {"patch": 1, "inverted": 2 + 6}[kind]
    assert of_student.tokens.shape[2] == of_teacher.tokens.shape[2] == tokens
    assert of_teacher.tokens.shape[3] == 2 * of_student.tokens.shape[3]  # two members
    assert of_teacher.maps.shape == (1, len(dataset.train), 1, tokens, tokens)
    for maps in (of_student.maps, of_teacher.maps):
        torch.testing.assert_close(maps.sum(dim=-1), torch.ones(maps.shape[:-1]))


def test_average_states__puts_hidden_states_side_by_side_and_averages_maps() -> None:
    first, second = (
        States(
            hidden=torch.full((1, 2, 3), value),
            tokens=torch.full((1, 2, 5, 4), value),
            maps=torch.full((1, 2, 1, 5, 5), value),
        )
        for value in (1.0, 2.0)
    )
    both = average_states([first, second])
    assert both.tokens is not None
    assert both.maps is not None
    assert (both.hidden.shape, both.tokens.shape) == ((1, 2, 6), (1, 2, 5, 8))
    assert both.hidden[0, 0].tolist() == [1.0] * 3 + [2.0] * 3
    assert both.tokens[0, 0, 0].tolist() == [1.0] * 4 + [2.0] * 4
    assert both.maps.unique().tolist() == [1.5]
    plain = average_states([States(torch.ones(1, 2, 3)), States(torch.ones(1, 2, 3))])
    assert (plain.tokens, plain.maps) == (None, None)


def test_train_ensemble__coupled_it_says_less_that_only_privilege_knows(dataset: WindowDataset) -> None:
    """Noise: only the future knows the future, and a coupled teacher says less of it."""
    losses = []
    for coupling in (0.0, 10.0):
        recipe = small_recipe(views=Views(future_sigma=0.0), teacher_training=BUDGET, coupling=coupling)
        teacher, _ = train_ensemble(dataset, recipe, seed=0)
        assert COMPANION not in dict(teacher.named_children())
        said = ensemble_labels(teacher, dataset, dataset.train, recipe, seed=0)
        losses.append(float(label_losses(said, dataset).mean()))
    apart, coupled = losses
    assert apart < coupled - 0.1


def test_coupled_loss__moves_teacher_and_companion_towards_each_other(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=UNPRIVILEGED)
    config = dataset.teacher_config(recipe)
    with first_weights(0):
        teacher, companion = (Forecaster(config, dataset.scalers, 1) for _ in range(2))
    teacher.add_module(COMPANION, companion)
    inputs = dataset.teacher_inputs(dataset.train, recipe, torch.Generator())
    labels = dataset.labels(dataset.train)
    said, heard = teacher(*inputs), companion(*inputs[:2])
    truth = hard_label_loss(said, labels)
    distance = (heard.softmax(-1) * (heard.log_softmax(-1) - said.log_softmax(-1))).sum(-1).mean()
    follows = (said.softmax(-1) * (said.log_softmax(-1) - heard.log_softmax(-1))).sum(-1).mean()
    expected = truth + 3 * distance + 0.5 * hard_label_loss(heard, labels) + 0.5 * follows
    torch.testing.assert_close(coupled_loss(teacher, inputs, labels, 3.0), expected)
    assert torch.equal(coupled_loss(teacher, inputs, labels, 0.0), truth)
