"""The refit: train the chosen recipe again on the whole history, for the numbers of epochs chosen before.

A network that was evaluated on a held-out part has not seen the latest data, by that part's length. The refit holds
nothing out, and so chooses nothing.
"""

from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from tutelage.data.windows import Panel, Parts, Span
from tutelage.distil.dataset import WindowDataset, fit_on, make_dataset
from tutelage.distil.plans import plan_student
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SoftLabels, uniform_labels
from tutelage.distil.students import train_students
from tutelage.model.architectures import States
from tutelage.model.kinds import Budget
from tutelage.model.networks import Forecaster
from tutelage.model.training import Progress


def refit_dataset(panel: Panel, parts: Parts, recipe: Recipe, *, lookback: int, horizon: int) -> WindowDataset:
    """All parts as one training part, with scalers and bins fitted on all of it.

    The validation part stays the same: training loops need one, but nothing is chosen by it here.
    """
    history = Span(parts.train.start, parts.test.end)
    return make_dataset(
        panel,
        Parts(train=history, validation=parts.validation, test=parts.test),
        fit_on(panel, history, bins=recipe.distillation.bins),
        lookback=lookback,
        horizon=horizon,
        unlabelled=recipe.distillation.unlabelled,
    )


def exact_budget(budget: Budget, epochs: int) -> Budget:
    """The same budget with exactly this number of epochs."""
    return budget.model_copy(update={"epochs": epochs, "patience": epochs})


def refit_student(
    dataset: WindowDataset,
    recipe: Recipe,
    *,
    soft: SoftLabels | None,
    gate: Float[Tensor, " horizon"] | None = None,
    states: States | None = None,
    epochs: int,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> Forecaster:
    """Train the student on soft labels for exactly this number of epochs, or the twin where `soft` is None.

    gate: that of the evaluated student, by hour; a refit has no held-out part to compute a new one from
    """
    plan = plan_student(dataset, recipe, seed=seed)
    if soft is None:
        plan, soft = plan.twin, uniform_labels(dataset)
    student, _ = train_students(
        dataset,
        [soft],
        [plan],
        recipe.override({"student.training": exact_budget(recipe.student.training, epochs)}),
        seed=seed,
        gate=None if gate is None else gate[None, None],
        states=states,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        take="last",
    )
    return student
