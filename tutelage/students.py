"""Students and their twins: many of one shape, trained side by side on the truth and on soft labels.

Student and twin start from the same weights and see the same batches; they differ in what they are taught alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.bodies import States
from tutelage.distillation import Task
from tutelage.fit import Progress, fit, seeded
from tutelage.heads import forecast_of, head_labels
from tutelage.layers import MemberLinear
from tutelage.lessons import further_loss, make_measure, taught_loss, truth_loss
from tutelage.metrics import Forecasts
from tutelage.networks import Forecaster, select_members, stack_members
from tutelage.recipe import Recipe, StudentPlan


def pair_plans(plans: Sequence[StudentPlan]) -> tuple[list[StudentPlan], list[tuple[int, int]]]:
    """The plans with the twins that they lack, and for each of the given plans its place and its twin's.

    Students of one seed and dropout share one twin: it's trained once.
    """
    every = list(dict.fromkeys([*plans, *(plan.twin for plan in plans)]))
    return every, [(every.index(plan), every.index(plan.twin)) for plan in plans]


def make_plan(recipe: Recipe, *, seed: int) -> StudentPlan:
    """The student of a recipe as one of many, with the recipe's α."""
    return StudentPlan(
        seed=seed,
        alpha=recipe.alpha,
        temperature=recipe.temperature,
        dropout=recipe.student_budget.dropout,
        terms=recipe.terms,
    )


def plan_student(task: Task, recipe: Recipe, *, seed: int) -> StudentPlan:
    """The student of a recipe on a task: α is what the recipe says for as many training windows."""
    alpha = recipe.alpha_for(len(task.train), task.horizon)
    return make_plan(recipe, seed=seed).model_copy(update={"alpha": alpha})


def even_labels(task: Task) -> Float[Tensor, "taught horizon bins"]:
    """Soft labels that say nothing, in place of a teacher's, for twins alone: they never learn from them."""
    even = torch.tensor(-math.log(len(task.bins)), device=task.panel.observed.device)
    return even.expand(len(task.taught()), task.horizon, len(task.bins))


def _start_students(task: Task, recipe: Recipe, plans: Sequence[StudentPlan]) -> Forecaster:
    """One network of all students, each as its own seed makes it alone."""
    device = task.panel.observed.device
    shape, fresh = task.shape(recipe, teacher=False), []
    for plan in plans:
        with seeded(plan.seed, device):
            fresh.append(Forecaster(shape, task.scalers, 1))
    students = stack_members(fresh, task.scalers).to(device)
    students.dropout.assign([plan.dropout for plan in plans], [plan.seed for plan in plans])
    return students


def _start_projection(students: Forecaster, plans: Sequence[StudentPlan], features: int) -> MemberLinear:
    """From the students' hidden states to the teacher's, each as its own seed makes it alone."""
    device, alone = next(students.parameters()).device, []
    for plan in plans:
        with seeded(plan.seed, device):
            alone.append(MemberLinear(1, students.shape.width, features))
    together = MemberLinear(len(plans), students.shape.width, features)
    together.load_state_dict(
        {n: torch.cat([one.get_parameter(n).detach() for one in alone]) for n, _ in together.named_parameters()}
    )
    return together.to(device)


def train_students(
    task: Task,
    soft: Float[Tensor, "sets taught horizon bins"],
    plans: Sequence[StudentPlan],
    recipe: Recipe,
    *,
    seed: int,
    gate: Float[Tensor, "#sets #taught #horizon"] | None = None,
    states: States | None = None,
    chunk: int = 1024,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster, Progress]:
    """Train one student a plan, all side by side; the members of the network and of the progress are the plans.

    `soft` are one or more sets of soft labels of `task.taught()`, in its order. The recipe gives the network's shape,
    its head and the budget; alpha, temperature (of a categorical head) and dropout are the plans' own. `seed` is that
    of the batches, which are the same for all. `gate` says how far each set is trusted, from 0 to 1, window by window
    and hour by hour: see `tutelage.gating`. `states` are those of the sets' teachers (`teacher_states`), one member a
    set, which some terms need. Each member ends as it would alone, within float tolerance, and stops early on the truth
    of the validation part, which is read in chunks of `chunk` windows.

    Raises ValueError where there is no plan, or one asks for soft labels or states that are not there.
    """
    if not plans or max(plan.soft for plan in plans) >= len(soft):
        raise ValueError(f"{len(plans)} plans can't be taught from {len(soft)} sets of soft labels")
    device = task.panel.observed.device
    # Before the sets are chosen from: one gate for all of them is a gate for each.
    gate = None if gate is None else gate.expand(soft.shape[:-1])
    needed = {name for plan in plans for name, weight in vars(plan.terms).items() if weight}
    if states is None and any(plan.terms.inside for plan in plans):
        raise ValueError("a plan is taught by the teacher's states, and none are given")
    students = _start_students(task, recipe, plans)
    terms = {n: torch.tensor([getattr(p.terms, n) for p in plans], device=device) for n in sorted(needed)}
    alpha = torch.tensor([plan.alpha for plan in plans], device=device)
    # What is the same for all students with a teacher is not repeated for each: the twins go along.
    learners = [plan for plan in plans if plan.taught]
    temperatures = {plan.temperature for plan in learners} or {1.0}
    temperature: float | Tensor = temperatures.pop()
    if temperatures:
        temperature = torch.tensor([plan.temperature for plan in plans], device=device)
    taught_by = sorted({plan.soft for plan in learners}) or [0]
    which = torch.tensor([taught_by.index(plan.soft) if plan.taught else 0 for plan in plans], device=device)
    edges, scale = task.edges(), task.scale()
    measure = make_measure(
        recipe.head, edges, scale, horizon=task.horizon, decay=recipe.horizon_decay, points=recipe.point_loss
    )
    soft = soft[taught_by]
    taught = head_labels(soft, recipe.head, edges=edges, scale=scale)
    paths = head_labels(soft, "point", edges=edges, scale=scale).squeeze(-1)
    trust = None if gate is None else gate[taught_by]
    states = None if states is None else states.at(taught_by)
    origins = task.taught()
    row_of = torch.full((len(task.panel.hour),), -1, dtype=torch.int64, device=device)
    row_of[origins] = torch.arange(len(origins), device=device)
    projection = None
    if states is not None and "features" in needed:
        projection = _start_projection(students, plans, states.hidden.shape[-1])
        # A part of the network while it trains: optimised, checkpointed and chosen with it.
        students.add_module("projection", projection)

    def loss(network: Forecaster, batch: Tensor) -> Tensor:
        rows, inputs = row_of[batch], task.student_inputs(batch)
        chosen = (slice(None), rows) if len(taught) == 1 else (which[:, None], rows)
        own = network.states(*inputs)
        outputs, labels, truth = network.read(own.hidden), taught[chosen], task.truth(batch)
        labelled = truth.isfinite() if len(task.unlabelled) else None
        total = taught_loss(
            measure,
            outputs,
            labels,
            truth if labelled is None else truth.nan_to_num(),
            alpha=alpha,
            temperature=temperature,
            gate=None if trust is None else trust[chosen],
            labelled=labelled,
        )
        if not terms:
            return total
        return total + further_loss(
            measure,
            terms,
            outputs=outputs,
            labels=labels,
            path=paths[chosen],
            states=own,
            teacher=None if states is None else states.at(chosen),
            projection=projection,
        )

    def validation_loss(network: Forecaster) -> Tensor:
        total = torch.zeros(network.members, device=device)
        for some in task.validation.split(chunk):
            total += truth_loss(measure, network(*task.student_inputs(some)), task.truth(some)) * len(some)
        return total / len(task.validation)

    with seeded(seed, device):
        progress = fit(
            students,
            loss,
            origins,
            validation_loss,
            recipe.student_budget,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
    if projection is not None:
        del students.projection
    return students, progress


def train_pairs(
    task: Task,
    soft: Float[Tensor, "sets taught horizon bins"],
    recipe: Recipe,
    *,
    seed: int,
    pairs: int = 1,
    gate: Float[Tensor, "#sets #taught #horizon"] | None = None,
    states: States | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[list[Forecaster], Progress]:
    """Train so many students (the recipe's α) by each set of soft labels, and their twins (α = 0), side by side.

    The first pair has `seed`, the next ones the seeds after it. Students and twin of a pair share first weights,
    batches and what dropout drops: they differ in what they are taught alone. Returned are the students of each set,
    then the twins, a member a pair, and the progress, whose members are all of these in this order.
    """
    plan, kinds = plan_student(task, recipe, seed=seed), len(soft) + 1
    own = [plan.model_copy(update={"seed": seed + pair}) for pair in range(pairs)]
    taught = [one.model_copy(update={"soft": place}) for place in range(len(soft)) for one in own]
    together, progress = train_students(
        task,
        soft,
        [*taught, *(one.twin for one in own)],
        recipe,
        seed=seed,
        gate=gate,
        states=states,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    members = torch.arange(kinds * pairs).view(kinds, pairs).tolist()
    return [select_members(together, task.scalers, of_kind) for of_kind in members], progress


def forecast_students(
    students: Forecaster, task: Task, origins: Int64[Tensor, " windows"], *, chunk: int = 1024
) -> Iterator[Forecasts]:
    """What each of the students side by side forecasts of these windows, in the target's unit, one after the other."""
    edges, scale = task.edges(), task.scale()
    students.eval()
    with torch.no_grad():
        outputs = torch.cat([students(*task.student_inputs(some)) for some in origins.split(chunk)], dim=1)
    for own in outputs:
        mean, quantiles = forecast_of(own, students.shape.head, edges=edges, scale=scale)
        yield Forecasts(mean.double().cpu().numpy(), quantiles.double().cpu().numpy())
