"""The winner once more, on all the history: its recipe, for as many epochs as were chosen.

What was judged on a held-out part is stale by that part's length. Nothing is held out here, so nothing is chosen here.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from tutelage.bodies import States
from tutelage.boosted import BoostedTeacher
from tutelage.distillation import Task
from tutelage.fit import Progress
from tutelage.heads import fit_bins
from tutelage.networks import Forecaster, fit_scalers
from tutelage.recipe import Budget, Recipe
from tutelage.students import even_labels, plan_student, train_students
from tutelage.teachers import Chair, shortened, train_any
from tutelage.windows import Span, window_origins

Report = Callable[[Progress], None]


def whole_task(judged: Task, history: Span, *, bins: int) -> Task:
    """The same task with all of a history to learn from; scalers and bins are fitted on all of it.

    Its validation part stays what it was: the loops ask for one, and nothing is chosen by it. Windows without a target
    come along where the judged task has some.
    """
    panel, device = judged.panel, judged.panel.hour.device

    def origins(*, labelled: bool) -> Tensor:
        found = window_origins(panel, history, lookback=judged.lookback, horizon=judged.horizon, labelled=labelled)
        return found.to(device)

    inside = (panel.hour >= history.hours.start) & (panel.hour < history.hours.stop)
    return replace(
        judged,
        train=origins(labelled=True),
        unlabelled=origins(labelled=False) if len(judged.unlabelled) else judged.unlabelled,
        scalers=fit_scalers(panel, history),
        bins=fit_bins(panel.observed[inside, 0].cpu().numpy(), bins),
    )


def refit_teacher(
    task: Task,
    chair: Chair,
    *,
    epochs: int,
    seed: int,
    checkpoint: Path,
    on_epoch: Report = lambda progress: None,
) -> Forecaster | BoostedTeacher:
    """Train one of a recipe's teachers for so many epochs; trees have none.

    checkpoint: where it keeps its own; what is found there is gone on from
    """
    brief = chair.recipe.model_copy(update={"teacher_budget": _exactly(chair.recipe.teacher_budget, epochs)})
    own = shortened(task, chair.horizon)
    teacher, _ = train_any(own, brief, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch)
    if isinstance(teacher, Forecaster):
        _take_last_weights(teacher, checkpoint)
    return teacher


def refit_student(
    task: Task,
    recipe: Recipe,
    *,
    soft: Float[Tensor, "taught horizon bins"] | None,
    gate: Float[Tensor, " horizon"] | None = None,
    states: States | None = None,
    epochs: int,
    seed: int,
    checkpoint: Path,
    on_epoch: Report = lambda progress: None,
) -> Forecaster:
    """Train the student for so many epochs on its teachers' soft labels, or, where there are none, the twin.

    gate: by hour, as it was found for the student that was judged: nothing is held out here to find another by
    """
    plan = plan_student(task, recipe, seed=seed)
    if soft is None:
        plan, soft = plan.twin, even_labels(task)
    brief = recipe.model_copy(update={"student_budget": _exactly(recipe.student_budget, epochs)})
    student, _ = train_students(
        task,
        soft[None],
        [plan],
        brief,
        seed=seed,
        gate=None if gate is None else gate[None, None],
        states=states,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    _take_last_weights(student, checkpoint)
    return student


def _exactly(budget: Budget, epochs: int) -> Budget:
    """The same budget with so many epochs, none fewer."""
    return budget.model_copy(update={"epochs": epochs, "patience": epochs})


def _take_last_weights(network: Forecaster, checkpoint: Path) -> None:
    """Give a network the weights of its last epoch: `fit` leaves it those that were best on the validation part."""
    with safe_open(checkpoint, "pt") as file:
        network.load_state_dict({name: file.get_tensor(f"weights.{name}") for name in network.state_dict()})
    network.eval()
