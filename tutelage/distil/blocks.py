"""Everything that a forecaster is made of, chosen on held-out blocks of its history.

The history before the test part is cut into blocks of time. Each is held out once: teachers, students, twins and simple
forecasts of the other windows forecast it. On these forecasts the numbers of epochs, the weights of the average and the
choice between student and twin are made; then students and twins are trained on all of the history.

Source: Bergmeir and Benitez 2012, On the use of cross-validation for time series predictor evaluation, for blocks with
gaps between them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, median
from typing import TypeVar

import torch
from torch import Tensor

from tutelage.distil.base import (
    HeldOut,
    SimpleForecasts,
    combine_held_out,
    fit_simple,
    forecast_held_out,
    weigh,
    with_simple,
)
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.ensemble import average_states
from tutelage.distil.pipeline import (
    Checkpoints,
    PartLabels,
    Reports,
    TrainedStudents,
    TrainedTeachers,
    distil_students,
    gates_of,
    no_checkpoint,
    no_report,
    train_teachers,
)
from tutelage.distil.recipe import Recipe
from tutelage.distil.soft_labels import SoftLabels, join_windows, mean_labels
from tutelage.distil.teachers import (
    ForecastFunction,
    Teacher,
    TeacherSpec,
    TeacherWeights,
    label_part,
    states_taught,
    weigh_teachers,
)
from tutelage.forecasts import Contender, crps
from tutelage.model.architectures import States
from tutelage.model.base import Base
from tutelage.model.threads import side_by_side

BLOCKS = 5
"""Number of blocks of the history, each held out once."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class BlockLabels:
    """The soft labels of one set of teachers, for each block of the history and for all of it.

    blocks: for each block, those of teachers that have not learned from it
    whole: the mean of all teachers'; `taught` are those of `dataset.whole().taught()`
    """

    blocks: tuple[PartLabels, ...]
    whole: PartLabels


@dataclass(frozen=True)
class FittedTeachers:
    """A recipe's teachers, trained once for each block of the history that they hold out, and their soft labels.

    weights: of each view in them, by hour of the horizon; None: all equal
    """

    blocks: list[TrainedTeachers]
    labels: BlockLabels
    weights: dict[str, list[float]] | None

    @property
    def epochs(self) -> dict[str, int]:
        """The number of epochs of each teacher by name, the median over the blocks; a refit trains for it."""
        every = [block.progress for block in self.blocks]
        return {name: max(1, round(median(fmean(each[name].best_epoch) for each in every))) for name in every[0]}


def fit_teachers(
    dataset: WindowDataset,
    recipe: Recipe,
    *,
    seed: int,
    registered: ForecastFunction | None = None,
    pretrained: ForecastFunction | None = None,
    checkpoints: Checkpoints = no_checkpoint,
    reports: Reports = no_report,
) -> FittedTeachers:
    """Train a recipe's teachers once for each block of the history, and label the windows with all of them.

    The teachers of a block learn from the other windows, and stop early on the block. So students that hold out the
    same block never learn from labels that its actual values went into, the views' weights aside. The
    networks of each view are spread over the blocks, at least one for each.

    Raises GapsError where there are too few windows for blocks, and what `train_teachers` raises.
    """
    whole = dataset.whole()
    taught = (whole if recipe.distillation.transfer else whole.alone()).taught()
    spread = recipe.override({"teacher.ensemble_size": -(-recipe.teacher.ensemble_size // BLOCKS)})
    parts, device = dataset.blocks(BLOCKS), whole.panel.observed.device

    def train(number: int) -> TrainedTeachers:
        return train_teachers(
            parts[number],
            spread,
            seed=seed + number,
            registered=registered,
            pretrained=pretrained,
            checkpoints=partial(_of_block, checkpoints, number + 1),
            reports=partial(_of_block, reports, number + 1),
        )

    blocks = side_by_side(train, range(BLOCKS), device)
    held_out = [(trained.teachers, block) for trained, block in zip(blocks, parts, strict=True)]
    weights = weigh_teachers(held_out, recipe, seed=seed)

    def label(number: int) -> tuple[SoftLabels, PartLabels]:
        teachers, block = held_out[number]
        every = _label_all(teachers, block, taught, seed=seed + number, weights=weights)
        of_block = taught[torch.isin(taught, block.taught())]
        return SoftLabels(taught, every.at(taught)), PartLabels(
            taught=SoftLabels(of_block, every.at(of_block)),
            validation=SoftLabels(block.validation, every.at(block.validation)),
            test=label_part(teachers, block, block.test, seed=seed + number, weights=weights),
        )

    labels, by_block = zip(*side_by_side(label, range(BLOCKS), device), strict=True)
    mean = mean_labels(labels)
    validation = SoftLabels(dataset.validation, mean.at(dataset.validation))
    of_whole = PartLabels(taught=mean, validation=validation, test=mean_labels([each.test for each in by_block]))
    return FittedTeachers(blocks, BlockLabels(by_block, of_whole), weights)


def states_of_blocks(
    dataset: WindowDataset, teachers: Sequence[Mapping[TeacherSpec, Teacher]], *, seed: int
) -> list[States]:
    """The hidden states of each block's first teacher, of the windows `dataset.whole().taught()`, in their order.

    teachers: for each block; seed: that of `fit_teachers`

    Raises ValueError where a first teacher is not a network.
    """
    whole = dataset.whole()
    return [states_taught(of_block, whole, seed=seed + number) for number, of_block in enumerate(teachers)]


def _label_all(
    teachers: Mapping[TeacherSpec, Teacher],
    block: WindowDataset,
    origins: Tensor,
    *,
    seed: int,
    weights: TeacherWeights | None,
) -> SoftLabels:
    """The labels of a block's teachers for these windows; those of their training are labelled as they were trained."""
    sites = origins[torch.isin(origins, block.transfer)]
    others = origins[~torch.isin(origins, torch.cat([block.train, sites]))]
    parts = [part for part in (block.train, sites, others) if len(part)]
    return join_windows([label_part(teachers, block, part, seed=seed, weights=weights) for part in parts])


@dataclass(frozen=True)
class FittedStudents:
    """Students and twins of the whole history before the test part, with everything that was chosen on its blocks.

    trained: one network per contender, with one member per replicate; epochs: of each contender
    bases: what each contender is averaged with; empty: nothing
    blocks: the progress of the trainings that each held out a block
    held_out_crps: CRPS of each contender on the held-out blocks, averaged with its base, in the target's unit
    """

    trained: TrainedStudents
    epochs: dict[Contender, int]
    bases: dict[Contender, Base]
    blocks: list[TrainedStudents]
    held_out_crps: dict[Contender, float]


def fit_students(
    dataset: WindowDataset,
    labels: Mapping[Contender, BlockLabels],
    recipe: Recipe,
    *,
    seed: int,
    replicates: int = 1,
    states: Sequence[States] | None = None,
    simple: SimpleForecasts | None = None,
    checkpoints: Checkpoints = no_checkpoint,
    reports: Reports = no_report,
) -> FittedStudents:
    """Choose epochs and weights on blocks of the history, then train students and twins on all of it.

    The history is the training and the validation part. Each of its blocks is held out once: networks trained on the
    other windows stop early on it and forecast it, and so do simple forecasts. Each contender then trains for the
    median of these epochs, holding nothing out, and is averaged with the simple forecasts by the weights that were
    best on the blocks. A refit does the same with the test part as well, so the verdict applies to what is registered.

    states: those of `states_of_blocks`, where terms compare hidden states
    simple: those of `fit_simple`, which students of several recipes can share; None: fitted here
    The other arguments are as in `distil_students`.

    Raises GapsError where there are too few windows for blocks.
    """
    dataset = dataset if recipe.distillation.transfer else dataset.alone()
    whole, parts = dataset.whole(), dataset.blocks(BLOCKS)
    # The last block, which is all that a teacher's trust is measured on, and the windows of the whole history.
    last = {name: replace(each.blocks[-1], taught=each.whole.taught) for name, each in labels.items()}
    gates = gates_of(parts[-1], last, recipe, seed=seed)
    blocks = _distil_blocks(whole, parts, labels, recipe, seed, gates, states, checkpoints, reports)
    if not recipe.student.has_base:
        simple = None
    elif simple is None:
        simple = fit_simple(whole, parts, recipe.student.pretrained)
    elif not recipe.distillation.transfer:
        simple = SimpleForecasts(simple.alone, simple.alone)
    held_out = _held_out(parts, blocks, simple)
    epochs = {
        name: max(1, round(median(each.progress.best_epoch[each.members[name].start] for each in blocks)))
        for name in blocks[0].members
    }
    trained = distil_students(
        whole,
        {name: each.whole for name, each in labels.items()},
        recipe,
        seed=seed,
        replicates=replicates,
        gates=gates,
        states=None if states is None else average_states(states),
        epochs=epochs,
        checkpoints=checkpoints,
        reports=reports,
    )
    bases = {name: weigh(held_out[name], name, simple.of(name).base) for name in epochs} if simple is not None else {}
    scored = {
        name: float(crps(combine_held_out(held_out[name], name, bases.get(name)), held_out[name].truth).mean())
        for name in epochs
    }
    return FittedStudents(trained, epochs, bases, blocks, scored)


def _held_out(
    parts: Sequence[WindowDataset], blocks: Sequence[TrainedStudents], simple: SimpleForecasts | None
) -> dict[Contender, HeldOut]:
    """The forecasts of the held-out blocks by all networks, and by the simple forecasts that each is averaged with."""
    networks = [block.networks for block in blocks]
    everything = forecast_held_out(parts, networks, None if simple is None else simple.with_sites)
    return {
        name: everything if simple is None else with_simple(everything, simple.of(name)) for name in blocks[0].members
    }


def _distil_blocks(
    whole: WindowDataset,
    parts: Sequence[WindowDataset],
    labels: Mapping[Contender, BlockLabels],
    recipe: Recipe,
    seed: int,
    gates: Tensor | None,
    states: Sequence[States] | None,
    checkpoints: Checkpoints,
    reports: Reports,
) -> list[TrainedStudents]:
    """Students and twins without each of the blocks; gates and states are those of the whole history's windows."""
    row_of = torch.full((len(whole.panel.step),), -1, dtype=torch.int64, device=whole.panel.step.device)
    row_of[whole.taught()] = torch.arange(len(whole.taught()), device=row_of.device)

    def distil(number: int) -> TrainedStudents:
        rows = row_of[parts[number].taught()]
        return distil_students(
            parts[number],
            {name: each.blocks[number] for name, each in labels.items()},
            recipe,
            seed=seed + number,
            gates=gates if gates is None or gates.shape[1] == 1 else gates[:, rows],
            states=None if states is None else states[number].at((slice(None), rows)),
            checkpoints=partial(_of_block, checkpoints, number + 1),
            reports=partial(_of_block, reports, number + 1),
        )

    return side_by_side(distil, range(BLOCKS), whole.panel.observed.device)


def _of_block(make: Callable[[str], Result], number: int, name: str) -> Result:
    """The checkpoint or report of a training that holds out a block."""
    return make(f"{name}-block-{number}")
