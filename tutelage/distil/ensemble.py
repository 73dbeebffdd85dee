"""Teacher ensembles: networks that learn f(x, x*) → y, and whose soft labels are the mean over members."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from tutelage.distil.dataset import WindowDataset
from tutelage.distil.losses import categorical_distillation_loss, hard_label_loss, soft_label_loss
from tutelage.distil.privilege import UNPRIVILEGED
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SMALLEST_PROBABILITY, SoftLabels
from tutelage.model.architectures import States
from tutelage.model.layers import first_weights
from tutelage.model.networks import Forecaster
from tutelage.model.training import Progress, Take, train_network


def _generator(seed: int) -> torch.Generator:
    """A CPU generator, so that a seed gives the same noise on every device."""
    return torch.Generator().manual_seed(seed)


def _annealed(recipe: Recipe, epoch: int) -> Recipe:
    """The recipe with the noise of one epoch of the teacher's training; epochs count from 0."""
    share = epoch / max(recipe.teacher.training.epochs - 1, 1)
    return recipe.override({"teacher.views": recipe.teacher.views.after(share)})


COMPANION = "companion"
"""The module that learns together with a coupled teacher, from the student's inputs; it exists only in training."""


def coupled_loss(
    teacher: Forecaster,
    inputs: tuple[Tensor, Tensor, Tensor],
    labels: Int64[Tensor, "windows horizon"],
    coupling: float,
) -> Float[Tensor, " members"]:
    """A teacher's cross-entropy, plus `coupling` times its divergence from a companion that learns at the same time.

    The companion sees the student's inputs alone; it learns from truth and teacher in equal parts. Each is held fixed
    in the other's loss, so that the teacher moves towards what can be known from the student's inputs.
    Source of the idea: Coupled Training, arXiv:2605.23268.
    """
    said = teacher(*inputs)
    loss = hard_label_loss(said, labels)
    if not coupling:
        return loss
    heard = teacher.get_submodule(COMPANION)(*inputs[:2])
    half = torch.full_like(loss, 0.5)
    follows = categorical_distillation_loss(heard, said.detach(), labels, alpha=half, temperature=1.0)
    return loss + coupling * soft_label_loss(said, heard.detach(), temperature=1.0) + follows


def train_ensemble(
    dataset: WindowDataset,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    take: Take = "best",
) -> tuple[Forecaster, Progress]:
    """Train the ensemble on (x, x*) with cross-entropy, with early stopping by member on the validation part.

    It learns from the training part, and from the windows of other sites where the recipe names them.

    The validation loss uses one fixed draw of the noise on the future, at its final size, so that epochs are
    comparable. Losses of a coupled teacher include its companion's.
    """
    device = dataset.panel.observed.device
    coupling = recipe.teacher.coupling
    with first_weights(seed) as generator:
        teacher = Forecaster(dataset.teacher_config(recipe), dataset.scalers, recipe.teacher.ensemble_size).to(device)
        if coupling:
            alone = dataset.teacher_config(recipe.override({"teacher.views": UNPRIVILEGED}))
            companion = Forecaster(alone, dataset.scalers, recipe.teacher.ensemble_size).to(device)
            teacher.add_module(COMPANION, companion)
    held_out, labels = dataset.validation, dataset.labels(dataset.validation)
    sites = [dataset.transfer] if recipe.teacher.other_sites is not None and len(dataset.transfer) else []
    shown = dataset.privileged_origins(recipe, [dataset.train, held_out, *sites], seed=seed)
    epoch_recipe = _annealed(recipe, 0)

    def advance(progress: Progress) -> None:
        nonlocal epoch_recipe
        epoch_recipe = _annealed(recipe, progress.epoch)
        on_epoch(progress)

    def loss(network: Forecaster, batch: Tensor) -> Tensor:
        inputs = dataset.teacher_inputs(batch, epoch_recipe, generator, shown=shown)
        return coupled_loss(network, inputs, dataset.labels(batch), coupling)

    def validation_loss(network: Forecaster) -> Tensor:
        inputs = dataset.teacher_inputs(held_out, recipe, _generator(seed), shown=shown)
        return coupled_loss(network, inputs, labels, coupling)

    progress = train_network(
        teacher,
        loss,
        torch.cat([dataset.train, *sites]),
        validation_loss,
        recipe.teacher.training,
        generator=generator,
        checkpoint=checkpoint,
        on_epoch=advance,
        take=take,
    )
    if coupling:
        delattr(teacher, COMPANION)
    return teacher, progress


def _drawn_inputs(
    dataset: WindowDataset, origins: Tensor, recipe: Recipe, *, seed: int, chunk: int
) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """A trained teacher's inputs for one part, chunk by chunk: a list with one entry per noise draw."""
    shown = dataset.privileged_origins(recipe, [origins], seed=seed)
    generator = _generator(seed)
    draws = recipe.teacher.noise_draws if recipe.teacher.views.is_noisy else 1
    for chunk_origins in origins.split(chunk):
        yield [dataset.teacher_inputs(chunk_origins, recipe, generator, shown=shown) for _ in range(draws)]


@torch.no_grad()
def ensemble_labels(
    teacher: Forecaster,
    dataset: WindowDataset,
    origins: Int64[Tensor, " windows"],
    recipe: Recipe,
    *,
    seed: int,
    chunk: int = 1024,
) -> SoftLabels:
    """The ensemble's soft labels, averaged as probabilities over members and noise draws.

    `origins` are one part: a placebo teacher sees privileged values shuffled within it. With the seed of its training
    and the origins of the training part, it sees the same values as in training.
    """
    teacher.eval()
    parts = []
    for draws in _drawn_inputs(dataset, origins, recipe, seed=seed, chunk=chunk):
        probability = torch.stack([functional.softmax(teacher(*inputs), dim=-1) for inputs in draws])
        parts.append(probability.mean(dim=(0, 1)).clamp(min=SMALLEST_PROBABILITY).log())
    return SoftLabels(origins, torch.cat(parts))


@torch.no_grad()
def ensemble_states(
    teacher: Forecaster,
    dataset: WindowDataset,
    origins: Int64[Tensor, " windows"],
    recipe: Recipe,
    *,
    seed: int,
    chunk: int = 1024,
) -> States:
    """The ensemble's hidden states, tokens and attention maps as those of one member, averaged over noise draws.

    Hidden states and tokens of the members are concatenated, attention maps are averaged over members and heads.
    `origins` and `seed` are as in `ensemble_labels`.
    """
    teacher.eval()
    parts = []
    for draws in _drawn_inputs(dataset, origins, recipe, seed=seed, chunk=chunk):
        drawn = [_as_one_member(teacher.states(*inputs)) for inputs in draws]
        parts.append(join_states(drawn, lambda values: torch.stack(values).mean(dim=0)))
    return join_states(parts, lambda values: torch.cat(values, dim=1))


def _as_one_member(states: States) -> States:
    tokens, maps = states.tokens, states.maps
    return States(
        hidden=states.hidden.transpose(0, 1).flatten(1)[None],
        tokens=None if tokens is None else tokens.permute(1, 2, 0, 3).flatten(2)[None],
        maps=None if maps is None else maps.mean(dim=(0, 2))[None, :, None],
    )


def join_states(states: Sequence[States], join: Callable[[list[Tensor]], Tensor]) -> States:
    """Several states as one: `join` is applied to hidden states, tokens and maps separately."""
    kinds = {name: [getattr(each, name) for each in states] for name in vars(states[0])}
    joined: dict[str, Any] = {name: None if kind[0] is None else join(kind) for name, kind in kinds.items()}
    return States(**joined)


def average_states(states: Sequence[States]) -> States:
    """The states of several teachers as one: hidden states and tokens concatenated, attention maps averaged."""
    maps = [each.maps for each in states if each.maps is not None]
    tokens = [each.tokens for each in states if each.tokens is not None]
    return States(
        hidden=torch.cat([each.hidden for each in states], dim=-1),
        tokens=torch.cat(tokens, dim=-1) if tokens else None,
        maps=torch.stack(maps).mean(dim=0) if maps else None,
    )
