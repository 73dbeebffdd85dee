"""Teacher, soft labels, student and twin.

The teacher is an ensemble that learns f(x, x*) → y. Its soft labels, averaged over members and noise draws, are
computed once. Student and twin start from the same weights and see the same batches; they differ in α alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from tutelage.fit import Progress, fit, seeded
from tutelage.heads import Bins, bin_index, head_labels
from tutelage.layers import MemberLinear
from tutelage.lessons import further_loss, make_measure, taught_loss, truth_loss
from tutelage.losses import hard_label_loss
from tutelage.networks import Forecaster, Scalers, Shape, select_members, stack_members
from tutelage.recipe import Recipe, StudentPlan
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
        return teacher(*self.teacher_inputs(origins, recipe, generator, shown=shown))

    def teacher_inputs(
        self,
        origins: Tensor,
        recipe: Recipe,
        generator: torch.Generator,
        *,
        shown: Int64[Tensor, " hours"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the teacher sees of these windows: what the student does, and the privileged values."""
        privileged = privileged_values(
            self.panel,
            origins if shown is None else shown[origins],
            recipe.views,
            self.scalers,
            lookback=self.lookback,
            horizon=self.horizon,
            generator=generator,
        )
        return *self.student_inputs(origins), privileged

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


def _drawn_inputs(
    task: Task, origins: Tensor, recipe: Recipe, *, seed: int, chunk: int
) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """What a trained teacher sees of one part's windows, chunk by chunk, once for each draw of the future's noise."""
    shown = task.privileged_origins(recipe, [origins], seed=seed)
    generator = _generator(seed)
    draws = recipe.draws if recipe.views.future_sigma is not None else 1
    for some in origins.split(chunk):
        yield [task.teacher_inputs(some, recipe, generator, shown=shown) for _ in range(draws)]


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
    parts = []
    for draws in _drawn_inputs(task, origins, recipe, seed=seed, chunk=chunk):
        probability = torch.stack([functional.softmax(teacher(*inputs), dim=-1) for inputs in draws])
        parts.append(probability.mean(dim=(0, 1)).clamp(min=1e-12).log())
    return torch.cat(parts)


@torch.no_grad()
def hidden_states(
    teacher: Forecaster,
    task: Task,
    origins: Int64[Tensor, " windows"],
    recipe: Recipe,
    *,
    seed: int,
    chunk: int = 1024,
) -> Float[Tensor, "windows features"]:
    """The last hidden states of the teacher's members, side by side, averaged over noise draws.

    Origins and seed are as for `soft_labels`.
    """
    teacher.eval()
    parts = []
    for draws in _drawn_inputs(task, origins, recipe, seed=seed, chunk=chunk):
        states = [teacher.hidden(*inputs).transpose(0, 1).flatten(1) for inputs in draws]
        parts.append(torch.stack(states).mean(dim=0))
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
    soft: Float[Tensor, "sets train horizon bins"],
    plans: Sequence[StudentPlan],
    recipe: Recipe,
    *,
    seed: int,
    gate: Float[Tensor, "#sets #train #horizon"] | None = None,
    hidden: Float[Tensor, "sets train features"] | None = None,
    chunk: int = 1024,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster, Progress]:
    """Train one student a plan, all side by side; the members of the network and of the progress are the plans.

    `soft` are one or more sets of soft labels of `task.train`, in its order. The recipe gives the network's shape, its
    head and the budget; alpha, temperature (of a categorical head) and dropout are the plans' own. `seed` is that of
    the batches, which are the same for all. `gate` says how far each set is trusted, from 0 to 1, window by window and
    hour by hour: see `tutelage.gating`. `hidden` are the teacher's hidden states (`hidden_states`), which some terms
    need. Each member ends as it would alone, within float tolerance, and stops early on
    the truth of the validation part, which is read in chunks of `chunk` windows.

    Raises ValueError where there is no plan, or one asks for soft labels or hidden states that are not there.
    """
    if not plans or max(plan.soft for plan in plans) >= len(soft):
        raise ValueError(f"{len(plans)} plans can't be taught from {len(soft)} sets of soft labels")
    device = task.panel.observed.device
    # Before the sets are chosen from: one gate for all of them is a gate for each.
    gate = None if gate is None else gate.expand(soft.shape[:-1])
    needed = {name for plan in plans for name, weight in vars(plan.terms).items() if weight}
    if hidden is None and any(plan.terms.hidden for plan in plans):
        raise ValueError("a plan is taught by the teacher's hidden states, and none are given")
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
    measure = make_measure(recipe.head, edges, scale, horizon=task.horizon, decay=recipe.horizon_decay)
    soft = soft[taught_by]
    taught = head_labels(soft, recipe.head, edges=edges, scale=scale)
    paths = head_labels(soft, "point", edges=edges, scale=scale).squeeze(-1)
    trust = None if gate is None else gate[taught_by]
    states_of_teacher = None if hidden is None else hidden[taught_by]
    row_of = torch.full((len(task.panel.hour),), -1, dtype=torch.int64, device=device)
    row_of[task.train] = torch.arange(len(task.train), device=device)
    projection = None
    if hidden is not None and "features" in needed:
        projection = _start_projection(students, plans, hidden.shape[-1])
        # A part of the network while it trains: optimised, checkpointed and chosen with it.
        students.add_module("projection", projection)

    def loss(network: Forecaster, batch: Tensor) -> Tensor:
        rows, inputs = row_of[batch], task.student_inputs(batch)
        chosen = (slice(None), rows) if len(taught) == 1 else (which[:, None], rows)
        states = network.hidden(*inputs)
        outputs = network.read(states)
        total = taught_loss(
            measure,
            outputs,
            taught[chosen],
            task.truth(batch),
            alpha=alpha,
            temperature=temperature,
            gate=None if trust is None else trust[chosen],
        )
        if not terms:
            return total
        return total + further_loss(
            measure,
            terms,
            outputs=outputs,
            path=paths[chosen],
            hidden=states,
            teacher_hidden=None if states_of_teacher is None else states_of_teacher[chosen],
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
            task.train,
            validation_loss,
            recipe.student_budget,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
    if projection is not None:
        del students.projection
    return students, progress


def train_pair(
    task: Task,
    soft: Float[Tensor, "train horizon bins"],
    recipe: Recipe,
    *,
    seed: int,
    hidden: Float[Tensor, "train features"] | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster, Forecaster, Progress]:
    """Train student (member 0, the recipe's α) and twin (member 1, α = 0) side by side; return both and the progress.

    They share first weights, batches and what dropout drops: they differ in α alone.
    """
    plan = StudentPlan(
        seed=seed,
        alpha=recipe.alpha,
        temperature=recipe.temperature,
        dropout=recipe.student_budget.dropout,
        terms=recipe.terms,
    )
    pair, progress = train_students(
        task,
        soft[None],
        [plan, plan.twin],
        recipe,
        seed=seed,
        hidden=None if hidden is None else hidden[None],
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    return select_members(pair, task.scalers, [0]), select_members(pair, task.scalers, [1]), progress


def describe(network: Forecaster, scalers: Scalers) -> dict[str, object]:
    """All that is needed, beside the weights, to build the network again, as plain values."""
    return {"shape": asdict(network.shape), "members": network.members, "scalers": asdict(scalers)}
