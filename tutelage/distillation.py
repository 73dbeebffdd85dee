"""Teacher, soft labels, student and twin.

The teacher is an ensemble that learns f(x, x*) → y. Its soft labels, averaged over members and noise draws, are
computed once. Student and twin start from the same weights and see the same batches; they differ in α alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from tutelage.fit import Progress, fit, seeded
from tutelage.heads import HEAD_LEVELS, Bins, bin_index, head_labels, ordered_quantiles
from tutelage.losses import (
    distillation_loss,
    hard_label_loss,
    pinball_loss,
    point_distillation_loss,
    point_loss,
    quantile_distillation_loss,
)
from tutelage.networks import Forecaster, Scalers, Shape, select_members, stack_members
from tutelage.recipe import Head, Recipe, StudentPlan
from tutelage.views import privileged_values, privileged_width, shuffle_windows
from tutelage.windows import Panel, gather_future, gather_past


@dataclass(frozen=True)
class Task:
    """What is learned: windows of a panel, cut in parts, with all that was fitted on the training part.

    lookback, horizon: hours; train, validation: origins of windows
    """

    panel: Panel
    lookback: int
    horizon: int
    train: Int64[Tensor, " train"]
    validation: Int64[Tensor, " validation"]
    scalers: Scalers
    bins: Bins

    def edges(self) -> Float[Tensor, " edges"]:
        """The bins' edges, on the panel's device."""
        return torch.tensor(self.bins.edges, device=self.panel.observed.device)

    def student_inputs(self, origins: Tensor) -> tuple[Tensor, Tensor]:
        """What the student sees of these windows: the observed past and the known future."""
        return (
            gather_past(self.panel.observed, origins, self.lookback),
            gather_future(self.panel.known, origins, self.horizon),
        )

    def truth(self, origins: Tensor) -> Float[Tensor, "windows horizon"]:
        """What came true, hour by hour, in the target's unit."""
        return gather_future(self.panel.observed[:, :1], origins, self.horizon).squeeze(-1)

    def labels(self, origins: Tensor) -> Int64[Tensor, "windows horizon"]:
        """The bin that came true, hour by hour."""
        return bin_index(self.truth(origins), self.edges())

    def scale(self) -> Float[Tensor, " 2"]:
        """The target's mean and standard deviation, on the panel's device."""
        target = self.scalers.observed
        return torch.tensor([target.mean[0], target.std[0]], device=self.panel.observed.device)

    def shape(self, recipe: Recipe, *, teacher: bool) -> Shape:
        """The shape of the teacher's or the student's network."""
        views = privileged_width(self.panel, recipe.views, lookback=self.lookback, horizon=self.horizon)
        return Shape(
            lookback=self.lookback,
            horizon=self.horizon,
            observed=self.panel.observed.shape[1],
            known=self.panel.known.shape[1],
            privileged=views if teacher else 0,
            bins=len(self.bins),
            width=recipe.teacher_width if teacher else recipe.student_width,
            dropout=(recipe.teacher_budget if teacher else recipe.student_budget).dropout,
            architecture=recipe.teacher if teacher else recipe.student,
            head="categorical" if teacher else recipe.head,
        )

    def teacher_logits(
        self,
        teacher: Forecaster,
        origins: Tensor,
        recipe: Recipe,
        generator: torch.Generator,
        *,
        shown: Int64[Tensor, " hours"] | None = None,
    ) -> Float[Tensor, "members windows horizon bins"]:
        """What the teacher says of these windows, with one fresh draw of the future's noise.

        `shown` (as of `privileged_origins`) names, for each origin, the window whose privileged values are seen.
        """
        privileged = privileged_values(
            self.panel,
            origins if shown is None else shown[origins],
            recipe.views,
            self.scalers,
            lookback=self.lookback,
            horizon=self.horizon,
            generator=generator,
        )
        return teacher(*self.student_inputs(origins), privileged)

    def privileged_origins(
        self, recipe: Recipe, parts: Sequence[Tensor], *, seed: int
    ) -> Int64[Tensor, " hours"] | None:
        """For each origin in these parts the window whose privileged values its teacher sees; None: its own.

        Only a placebo teacher sees others: within each part they are shuffled, by the seed.
        """
        if not recipe.views.placebo:
            return None
        shown = torch.full((len(self.panel.hour),), -1, dtype=torch.int64, device=self.panel.hour.device)
        for origins in parts:
            shown[origins] = shuffle_windows(origins, seed=seed)
        return shown


def _generator(seed: int) -> torch.Generator:
    """Noise comes from the CPU's generator on every device: the same seed, the same noise."""
    return torch.Generator().manual_seed(seed)


def train_teacher(
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster, Progress]:
    """Train the ensemble on (x, x*) with cross-entropy; early stopping by member on the validation part.

    The validation loss uses one fixed draw of the future's noise, so that epochs can be compared.
    """
    device = task.panel.observed.device
    with seeded(seed, device):
        shape = task.shape(recipe, teacher=True)
        teacher = Forecaster(shape, task.scalers, recipe.teachers).to(device)
        held_out, labels = task.validation, task.labels(task.validation)
        shown = task.privileged_origins(recipe, [task.train, held_out], seed=seed)

        def loss(network: Forecaster, batch: Tensor) -> Tensor:
            logits = task.teacher_logits(network, batch, recipe, torch.default_generator, shown=shown)
            return hard_label_loss(logits, task.labels(batch))

        def validation_loss(network: Forecaster) -> Tensor:
            logits = task.teacher_logits(network, held_out, recipe, _generator(seed), shown=shown)
            return hard_label_loss(logits, labels)

        progress = fit(
            teacher,
            loss,
            task.train,
            validation_loss,
            recipe.teacher_budget,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
    return teacher, progress


@torch.no_grad()
def soft_labels(
    teacher: Forecaster,
    task: Task,
    origins: Int64[Tensor, " windows"],
    recipe: Recipe,
    *,
    seed: int,
    chunk: int = 1024,
) -> Float[Tensor, "windows horizon bins"]:
    """The teacher's forecasts as log-probabilities, averaged as probabilities over members and noise draws.

    The origins are one part: a placebo teacher sees them shuffled among themselves. With the seed that it was trained
    with, and the training part's origins, it sees the same again.
    """
    teacher.eval()
    shown = task.privileged_origins(recipe, [origins], seed=seed)
    generator = _generator(seed)
    draws = recipe.draws if recipe.views.future_sigma is not None else 1
    parts = []
    for some in origins.split(chunk):
        probability = torch.stack(
            [
                functional.softmax(task.teacher_logits(teacher, some, recipe, generator, shown=shown), dim=-1)
                for _ in range(draws)
            ]
        )
        parts.append(probability.mean(dim=(0, 1)).clamp(min=1e-12).log())
    return torch.cat(parts)


def pair_plans(plans: Sequence[StudentPlan]) -> tuple[list[StudentPlan], list[tuple[int, int]]]:
    """The plans with the twins that they lack, and for each of the given plans its place and its twin's.

    Students of one seed and dropout share one twin: it's trained once.
    """
    every = list(dict.fromkeys([*plans, *(plan.twin for plan in plans)]))
    return every, [(every.index(plan), every.index(plan.twin)) for plan in plans]


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


class _Lessons:
    """The losses of a head, with all that they need resident on the device."""

    def __init__(self, task: Task, head: Head) -> None:
        self.task, self.head = task, head
        self.scale = task.scale()
        self.levels = torch.tensor(HEAD_LEVELS, device=self.scale.device)

    def standardised(self, origins: Tensor) -> Tensor:
        return (self.task.truth(origins) - self.scale[0]) / self.scale[1]

    def from_truth(self, outputs: Tensor, origins: Tensor) -> Tensor:
        """One loss a member: what validation stops by."""
        if self.head == "categorical":
            return hard_label_loss(outputs, self.task.labels(origins))
        if self.head == "point":
            return point_loss(outputs.squeeze(-1), self.standardised(origins).unsqueeze(0))
        return pinball_loss(ordered_quantiles(outputs), self.standardised(origins), self.levels)

    def from_both(
        self,
        outputs: Tensor,
        teacher: Tensor,
        origins: Tensor,
        *,
        alpha: Tensor,
        temperature: float | Tensor,
        gate: Tensor | None,
    ) -> Tensor:
        """One loss a member, from the teacher with α and the truth with 1 − α."""
        if self.head == "categorical":
            labels = self.task.labels(origins)
            return distillation_loss(outputs, teacher, labels, alpha=alpha, temperature=temperature, gate=gate)
        truth = self.standardised(origins)
        if self.head == "point":
            return point_distillation_loss(outputs.squeeze(-1), teacher.squeeze(-1), truth, alpha=alpha, gate=gate)
        quantiles = ordered_quantiles(outputs)
        return quantile_distillation_loss(quantiles, teacher, truth, self.levels, alpha=alpha, gate=gate)


def train_students(
    task: Task,
    soft: Float[Tensor, "sets train horizon bins"],
    plans: Sequence[StudentPlan],
    recipe: Recipe,
    *,
    seed: int,
    gate: Float[Tensor, "#sets #train #horizon"] | None = None,
    chunk: int = 1024,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster, Progress]:
    """Train one student a plan, all side by side; the members of the network and of the progress are the plans.

    `soft` are one or more sets of soft labels of `task.train`, in its order. The recipe gives the network's shape, its
    head and the budget; alpha, temperature (of a categorical head) and dropout are the plans' own. `seed` is that of
    the batches, which are the same for all. `gate` says how far each set is trusted, from 0 to 1, window by window and
    hour by hour: see `tutelage.gating`. Each member ends as it would alone, within float tolerance, and stops early on
    the truth of the validation part, which is read in chunks of `chunk` windows.

    Raises ValueError where there is no plan, or one asks for a set of soft labels that is not there.
    """
    if not plans or max(plan.soft for plan in plans) >= len(soft):
        raise ValueError(f"{len(plans)} plans can't be taught from {len(soft)} sets of soft labels")
    device = task.panel.observed.device
    students = _start_students(task, recipe, plans)
    alpha = torch.tensor([plan.alpha for plan in plans], device=device)
    # What is the same for all students with a teacher is not repeated for each: the twins go along.
    learners = [plan for plan in plans if plan.alpha > 0]
    temperatures = {plan.temperature for plan in learners} or {1.0}
    temperature: float | Tensor = temperatures.pop()
    if temperatures:
        temperature = torch.tensor([plan.temperature for plan in plans], device=device)
    taught_by = sorted({plan.soft for plan in learners}) or [0]
    which = torch.tensor([taught_by.index(plan.soft) if plan.alpha > 0 else 0 for plan in plans], device=device)
    trust = None if gate is None else gate.expand(soft.shape[:-1])[taught_by]
    lessons = _Lessons(task, recipe.head)
    taught = head_labels(soft[taught_by], recipe.head, edges=task.edges(), scale=task.scale())
    row_of = torch.full((len(task.panel.hour),), -1, dtype=torch.int64, device=device)
    row_of[task.train] = torch.arange(len(task.train), device=device)

    def loss(network: Forecaster, batch: Tensor) -> Tensor:
        rows = row_of[batch]
        chosen = (slice(None), rows) if len(taught) == 1 else (which[:, None], rows)
        return lessons.from_both(
            network(*task.student_inputs(batch)),
            taught[chosen],
            batch,
            alpha=alpha,
            temperature=temperature,
            gate=None if trust is None else trust[chosen],
        )

    def validation_loss(network: Forecaster) -> Tensor:
        total = torch.zeros(network.members, device=device)
        for some in task.validation.split(chunk):
            total += lessons.from_truth(network(*task.student_inputs(some)), some) * len(some)
        return total / len(task.validation)

    with seeded(seed, device):
        progress = fit(
            students,
            loss,
            task.train,
            validation_loss,
            recipe.student_budget,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
    return students, progress


def train_pair(
    task: Task,
    soft: Float[Tensor, "train horizon bins"],
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster, Forecaster, Progress]:
    """Train student (member 0, the recipe's α) and twin (member 1, α = 0) side by side; return both and the progress.

    They share first weights, batches and what dropout drops: they differ in α alone.
    """
    plan = StudentPlan(
        seed=seed, alpha=recipe.alpha, temperature=recipe.temperature, dropout=recipe.student_budget.dropout
    )
    pair, progress = train_students(
        task, soft[None], [plan, plan.twin], recipe, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch
    )
    return select_members(pair, task.scalers, [0]), select_members(pair, task.scalers, [1]), progress


def describe(network: Forecaster, scalers: Scalers) -> dict[str, object]:
    """All that is needed, beside the weights, to build the network again, as plain values."""
    return {"shape": asdict(network.shape), "members": network.members, "scalers": asdict(scalers)}
