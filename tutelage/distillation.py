"""What is learned, the teacher, and its soft labels.

The teacher is an ensemble that learns f(x, x*) → y. Its soft labels, averaged over members and noise draws, are
computed once. Those who learn from them are in `tutelage.students`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from tutelage.bodies import Shape, States
from tutelage.errors import SpecError
from tutelage.fit import Progress, fit, seeded
from tutelage.heads import Bins, bin_index
from tutelage.losses import hard_label_loss
from tutelage.networks import Forecaster, Scalers
from tutelage.recipe import Recipe
from tutelage.views import privileged_values, privileged_width, shuffle_windows
from tutelage.windows import Panel, gather_future, gather_past


@dataclass(frozen=True)
class Task:
    """What is learned: windows of a panel, cut in parts, with all that was fitted on the training part.

    lookback, horizon: hours; train, validation: origins of windows
    unlabelled: origins of further windows of the training part, whose target is missing for one hour or more; only
    soft labels teach these hours
    """

    panel: Panel
    lookback: int
    horizon: int
    train: Int64[Tensor, " train"]
    validation: Int64[Tensor, " validation"]
    scalers: Scalers
    bins: Bins
    unlabelled: Int64[Tensor, " unlabelled"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def taught(self) -> Int64[Tensor, " taught"]:
        """Origins of the windows that students learn from: the training part's, then those without a target."""
        return torch.cat([self.train, self.unlabelled.to(self.train.device)])

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
        """The shape of the teacher's or the student's network.

        Raises ValueError where the recipe's teacher is no network, and SpecError where a rolled student would have to
        forecast other columns than the target, too.
        """
        kind = recipe.teacher if teacher else recipe.student
        if kind == "boosted":
            raise ValueError("boosted trees are no network: they are trained by tutelage.teachers")
        rolled, beside = recipe.rolled and not teacher, self.panel.observed.shape[1] - 1
        if rolled and beside:
            raise SpecError(
                f"recipe.rolled: a student that goes on from its own forecasts sees the target's past alone, and "
                f"{beside} more observed columns are beside it, which nobody forecasts"
            )
        head = "categorical" if teacher else recipe.head
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
            architecture=kind,
            head=head,
            rolled=rolled,
            centres=self._centres() if rolled and head == "categorical" else (),
        )

    def _centres(self) -> tuple[float, ...]:
        """The bins' means, standardised."""
        mean, std = self.scalers.observed.mean[0], self.scalers.observed.std[0]
        return tuple(((low + high) / 2 - mean) / std for low, high in itertools.pairwise(self.bins.edges))

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


def _annealed(recipe: Recipe, epoch: int) -> Recipe:
    """The recipe with the noise of one epoch of the teacher's training, counted from 0."""
    share = epoch / max(recipe.teacher_budget.epochs - 1, 1)
    return recipe.model_copy(update={"views": recipe.views.after(share)})


def train_teacher(
    task: Task,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster, Progress]:
    """Train the ensemble on (x, x*) with cross-entropy; early stopping by member on the validation part.

    The validation loss uses one fixed draw of the future's noise, of the size that it has in the end, so that epochs
    can be compared.
    """
    device = task.panel.observed.device
    with seeded(seed, device):
        shape = task.shape(recipe, teacher=True)
        teacher = Forecaster(shape, task.scalers, recipe.teachers).to(device)
        held_out, labels = task.validation, task.labels(task.validation)
        shown = task.privileged_origins(recipe, [task.train, held_out], seed=seed)

        now = _annealed(recipe, 0)

        def noted(progress: Progress) -> None:
            nonlocal now
            now = _annealed(recipe, progress.epoch)
            on_epoch(progress)

        def loss(network: Forecaster, batch: Tensor) -> Tensor:
            logits = task.teacher_logits(network, batch, now, torch.default_generator, shown=shown)
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
            on_epoch=noted,
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


def mean_labels(labels: Sequence[Float[Tensor, "windows horizon bins"]]) -> Float[Tensor, "windows horizon bins"]:
    """Soft labels of several teachers as one: the logarithm of their mean probability."""
    return torch.stack(list(labels)).logsumexp(dim=0) - math.log(len(labels))


@torch.no_grad()
def teacher_states(
    teacher: Forecaster,
    task: Task,
    origins: Int64[Tensor, " windows"],
    recipe: Recipe,
    *,
    seed: int,
    chunk: int = 1024,
) -> States:
    """What the teacher holds inside, averaged over noise draws, the ensemble as one member.

    Hidden states and tokens of its members stand side by side, attention maps are averaged over members and heads.
    Origins and seed are as for `soft_labels`.
    """
    teacher.eval()
    parts = []
    for draws in _drawn_inputs(task, origins, recipe, seed=seed, chunk=chunk):
        drawn = [_as_one(teacher.states(*inputs)) for inputs in draws]
        parts.append(join_states(drawn, lambda values: torch.stack(values).mean(dim=0)))
    return join_states(parts, lambda values: torch.cat(values, dim=1))


def _as_one(states: States) -> States:
    """An ensemble's states as those of one member."""
    tokens, maps = states.tokens, states.maps
    return States(
        hidden=states.hidden.transpose(0, 1).flatten(1)[None],
        tokens=None if tokens is None else tokens.permute(1, 2, 0, 3).flatten(2)[None],
        maps=None if maps is None else maps.mean(dim=(0, 2))[None, :, None],
    )


def join_states(states: Sequence[States], join: Callable[[list[Tensor]], Tensor]) -> States:
    """Several states as one, each kind by itself."""
    kinds = {name: [getattr(one, name) for one in states] for name in vars(states[0])}
    joined: dict[str, Any] = {name: None if kind[0] is None else join(kind) for name, kind in kinds.items()}
    return States(**joined)
