"""Teacher, soft labels, student and twin.

The teacher is an ensemble that learns f(x, x*) → y. Its soft labels, averaged over members and noise draws, are
computed once. Student and twin start from the same weights and see the same batches; they differ in α alone.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from tutelage.fit import Progress, fit, seeded
from tutelage.heads import Bins, bin_index
from tutelage.losses import distillation_loss, hard_label_loss
from tutelage.networks import Forecaster, Scalers, Shape, select_members
from tutelage.recipe import Recipe
from tutelage.views import privileged_values, privileged_width
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

    def labels(self, origins: Tensor) -> Int64[Tensor, "windows horizon"]:
        """The bin that came true, hour by hour."""
        return bin_index(gather_future(self.panel.observed[:, :1], origins, self.horizon).squeeze(-1), self.edges())

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
        )

    def teacher_logits(
        self, teacher: Forecaster, origins: Tensor, recipe: Recipe, generator: torch.Generator
    ) -> Float[Tensor, "members windows horizon bins"]:
        """What the teacher says of these windows, with one fresh draw of the future's noise."""
        privileged = privileged_values(
            self.panel,
            origins,
            recipe.views,
            self.scalers,
            lookback=self.lookback,
            horizon=self.horizon,
            generator=generator,
        )
        return teacher(*self.student_inputs(origins), privileged)


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

        def loss(network: Forecaster, batch: Tensor) -> Tensor:
            return hard_label_loss(
                task.teacher_logits(network, batch, recipe, torch.default_generator), task.labels(batch)
            )

        def validation_loss(network: Forecaster) -> Tensor:
            return hard_label_loss(task.teacher_logits(network, held_out, recipe, _generator(seed)), labels)

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
    """The teacher's forecasts as log-probabilities, averaged as probabilities over members and noise draws."""
    teacher.eval()
    generator = _generator(seed)
    draws = recipe.draws if recipe.views.future_sigma is not None else 1
    parts = []
    for some in origins.split(chunk):
        probability = torch.stack(
            [functional.softmax(task.teacher_logits(teacher, some, recipe, generator), dim=-1) for _ in range(draws)]
        )
        parts.append(probability.mean(dim=(0, 1)).clamp(min=1e-12).log())
    return torch.cat(parts)


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

    `soft` are the soft labels of `task.train`, in its order. Both stop early on the truth of the validation part.
    """
    device = task.panel.observed.device
    with seeded(seed, device):
        one = Forecaster(task.shape(recipe, teacher=False), task.scalers, 1).to(device)
        pair = select_members(one, task.scalers, [0, 0])
        alpha = torch.tensor([recipe.alpha, 0.0], device=device)
        row_of = torch.full((len(task.panel.hour),), -1, dtype=torch.int64, device=device)
        row_of[task.train] = torch.arange(len(task.train), device=device)
        held_out, labels = task.validation, task.labels(task.validation)

        def loss(network: Forecaster, batch: Tensor) -> Tensor:
            return distillation_loss(
                network(*task.student_inputs(batch)),
                soft[row_of[batch]].unsqueeze(0),
                task.labels(batch),
                alpha=alpha,
                temperature=recipe.temperature,
            )

        def validation_loss(network: Forecaster) -> Tensor:
            return hard_label_loss(network(*task.student_inputs(held_out)), labels)

        progress = fit(
            pair,
            loss,
            task.train,
            validation_loss,
            recipe.student_budget,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
    return select_members(pair, task.scalers, [0]), select_members(pair, task.scalers, [1]), progress


def describe(network: Forecaster, scalers: Scalers) -> dict[str, object]:
    """All that is needed, beside the weights, to build the network again, as plain values."""
    return {"shape": asdict(network.shape), "members": network.members, "scalers": asdict(scalers)}
