"""Students and their twins: several networks of one architecture, trained side by side on truth and soft labels.

Student and twin start from the same weights and see the same batches; only their losses differ.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.distil.dataset import WindowDataset
from tutelage.distil.objective import PROJECTION, make_objective
from tutelage.distil.plans import StudentPlan
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SoftLabels
from tutelage.forecasts import Forecasts
from tutelage.model.architectures import States
from tutelage.model.heads import forecast_of
from tutelage.model.layers import MemberLinear, first_weights
from tutelage.model.networks import Forecaster, stack_members
from tutelage.model.training import Progress, Take, train_network

CHUNK_WINDOWS = 1024
"""Windows per forward pass outside of training."""


def _start_students(dataset: WindowDataset, recipe: Recipe, plans: Sequence[StudentPlan]) -> Forecaster:
    """One network with all students, each with the initial weights of its seed, as if built separately."""
    device = dataset.panel.observed.device
    config, members = dataset.student_config(recipe), []
    for plan in plans:
        with first_weights(plan.seed):
            members.append(Forecaster(config, dataset.scalers, 1))
    students = stack_members(members, dataset.scalers).to(device)
    students.dropout.assign([plan.dropout for plan in plans], [plan.seed for plan in plans])
    return students


def _add_projection(students: Forecaster, plans: Sequence[StudentPlan], features: int) -> None:
    """Add the map from the students' hidden states to the teacher's, initialised by each student's seed.

    During training it is part of the network: optimised and checkpointed with it, by the same best epoch.
    """
    device, members = next(students.parameters()).device, []
    for plan in plans:
        with first_weights(plan.seed):
            members.append(MemberLinear(1, students.config.width, features))
    projection = MemberLinear(len(plans), students.config.width, features)
    projection.load_state_dict(
        {n: torch.cat([each.get_parameter(n).detach() for each in members]) for n, _ in projection.named_parameters()}
    )
    students.add_module(PROJECTION, projection.to(device))


def train_students(
    dataset: WindowDataset,
    soft: Sequence[SoftLabels],
    plans: Sequence[StudentPlan],
    recipe: Recipe,
    *,
    seed: int,
    held_out: Sequence[SoftLabels] | None = None,
    gate: Float[Tensor, "#sets #taught #horizon"] | None = None,
    states: States | None = None,
    chunk: int = CHUNK_WINDOWS,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    take: Take = "best",
) -> tuple[Forecaster, Progress]:
    """Train one student per plan, all side by side; members of the network and of the progress are in plan order.

    soft: one or more sets of soft labels of the windows `dataset.taught()`; each plan names its set
    recipe: gives network, head and budget; alpha, temperature and dropout come from the plans
    seed: of the batches, which all students share
    held_out: the sets' soft labels of the validation part, for recipes whose students stop by them
    gate: the factor on α for each set, from 0 to 1, by window and hour: see `tutelage.distil.gating`
    states: of the sets' teachers (`ensemble.ensemble_states`), one member per set, for terms that need them

    Each member ends as if trained alone, within float tolerance, and stops early on the validation part.

    Raises ValueError where there is no plan, or a plan needs soft labels or states that are not given.
    """
    by_teacher = recipe.distillation.stop == "teacher" and take == "best" and any(plan.alpha > 0 for plan in plans)
    if by_teacher and held_out is None:
        raise ValueError("students stop by the soft labels of the validation part, and none are given")
    if not plans or max(plan.soft for plan in plans) >= len(soft):
        raise ValueError(f"{len(plans)} plans can't be taught from {len(soft)} sets of soft labels")
    if states is None and any(plan.terms.needs_hidden_states for plan in plans):
        raise ValueError("a plan's terms need the teacher's states, and none are given")
    students = _start_students(dataset, recipe, plans)
    held_out = held_out if by_teacher else None
    objective = make_objective(dataset, soft, plans, recipe, held_out=held_out, gate=gate, states=states)
    if states is not None and "features" in objective.terms:
        _add_projection(students, plans, states.hidden.shape[-1])
    progress = train_network(
        students,
        objective,
        dataset.taught(),
        lambda network: objective.validation_loss(network, chunk=chunk),
        recipe.student.training,
        generator=torch.Generator().manual_seed(seed),
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        take=take,
    )
    if hasattr(students, PROJECTION):
        delattr(students, PROJECTION)
    return students, progress


def forecast_students(
    students: Forecaster, dataset: WindowDataset, origins: Int64[Tensor, " windows"], *, chunk: int = CHUNK_WINDOWS
) -> Iterator[Forecasts]:
    """The forecasts of each student, member by member, in the target's unit."""
    edges, scale = dataset.edges(), dataset.scale()
    students.eval()
    with torch.no_grad():
        outputs = torch.cat([students(*dataset.student_inputs(part)) for part in origins.split(chunk)], dim=1)
    for member_outputs in outputs:
        mean, quantiles = forecast_of(member_outputs, students.config.head, edges=edges, scale=scale)
        yield Forecasts(mean.cpu().double().numpy(), quantiles.cpu().double().numpy())
