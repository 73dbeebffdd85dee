"""The winner once more, on all the history: its recipe, for as many epochs as were chosen.

What was judged on a held-out part is stale by that part's length. Nothing is held out here, so nothing is chosen here.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open

from tutelage.distillation import Task, hidden_states, soft_labels, train_students, train_teacher
from tutelage.fit import Progress
from tutelage.heads import fit_bins
from tutelage.networks import Forecaster, fit_scalers
from tutelage.recipe import Budget, Recipe, StudentPlan
from tutelage.windows import Span, window_origins

Report = Callable[[Progress], None]


def whole_task(judged: Task, history: Span, *, bins: int) -> Task:
    """The same task with all of a history to learn from; scalers and bins are fitted on all of it.

    Its validation part stays what it was: the loops ask for one, and nothing is chosen by it.
    """
    panel = judged.panel
    origins = window_origins(panel, history, lookback=judged.lookback, horizon=judged.horizon)
    inside = (panel.hour >= history.hours.start) & (panel.hour < history.hours.stop)
    return replace(
        judged,
        train=origins.to(panel.hour.device),
        scalers=fit_scalers(panel, history),
        bins=fit_bins(panel.observed[inside, 0].cpu().numpy(), bins),
    )


def refit_student(
    task: Task,
    recipe: Recipe,
    *,
    taught: bool,
    teacher_epochs: int,
    student_epochs: int,
    seed: int,
    checkpoints: tuple[Path, Path],
    on_teacher: Report = lambda progress: None,
    on_student: Report = lambda progress: None,
) -> Forecaster:
    """Train the student for so many epochs, after a teacher of its own where it is `taught`; the twin needs none.

    checkpoints: where teacher and student keep theirs; what is found there is gone on from
    """
    if taught:
        brief = recipe.model_copy(update={"teacher_budget": _exactly(recipe.teacher_budget, teacher_epochs)})
        teacher, _ = train_teacher(task, brief, seed=seed, checkpoint=checkpoints[0], on_epoch=on_teacher)
        _take_last_weights(teacher, checkpoints[0])
        soft = soft_labels(teacher, task, task.train, recipe, seed=seed)
        hidden = hidden_states(teacher, task, task.train, recipe, seed=seed)[None] if recipe.terms.hidden else None
    else:
        # The twin is taught by nobody: labels that say nothing stand for the teacher's.
        shape = (len(task.train), task.horizon, len(task.bins))
        soft = torch.full(shape, -math.log(len(task.bins)), device=task.panel.observed.device)
        hidden = None
    plan = StudentPlan(
        seed=seed,
        alpha=recipe.alpha,
        temperature=recipe.temperature,
        dropout=recipe.student_budget.dropout,
        terms=recipe.terms,
    )
    brief = recipe.model_copy(update={"student_budget": _exactly(recipe.student_budget, student_epochs)})
    student, _ = train_students(
        task,
        soft[None],
        [plan if taught else plan.twin],
        brief,
        seed=seed,
        hidden=hidden,
        checkpoint=checkpoints[1],
        on_epoch=on_student,
    )
    _take_last_weights(student, checkpoints[1])
    return student


def _exactly(budget: Budget, epochs: int) -> Budget:
    """The same budget with so many epochs, none fewer."""
    return budget.model_copy(update={"epochs": epochs, "patience": epochs})


def _take_last_weights(network: Forecaster, checkpoint: Path) -> None:
    """Give a network the weights of its last epoch: `fit` leaves it those that were best on the validation part."""
    with safe_open(checkpoint, "pt") as file:
        network.load_state_dict({name: file.get_tensor(f"weights.{name}") for name in network.state_dict()})
    network.eval()
