"""Training of students and twins, and the export of the first replicate."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Literal
from uuid import UUID

import torch

from runtime.artifacts import (
    EXPORT,
    block_folder,
    read_block_labels,
    read_dataset,
    write_base,
    write_gate,
    write_held_out,
    write_history,
)
from runtime.caching import checkpoint_in, clear_checkpoints, stage_folder
from runtime.progress import BLOCK_SUFFIX, mean_history, mean_rows, reporter
from runtime.runs import log_history
from runtime.stage import cached_stage
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest, TrainedManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.blocks import BLOCKS, FittedStudents, fit_students, states_of_blocks
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.recipe import TrainingPlan
from tutelage.distil.teachers import FIRST_TEACHER, list_teachers
from tutelage.files import file_digest, folder_written_whole, value_digest
from tutelage.forecasts import Contender
from tutelage.judge.verdict import REGISTRABLE, choose
from tutelage.model.architectures import States
from tutelage.model.export import export_student, student_card
from tutelage.model.networks import select_members
from tutelage.model.training import Progress
from tutelage.model.weights import WEIGHTS, load_network, save_network


@cached_stage("distil students", run_name="students {features.task}", retry_seconds=5)
def distil_all_students(
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    unprivileged: TrainedManifest | None,
    plan: TrainingPlan,
    run: RunManifest,
) -> TrainedManifest:
    """Train students, unprivileged students and twins, and export the first student and the first twin.

    One of these two may be registered. The other replicates are for the verdict, because a single one can be lucky.
    The histories are means over the trainings that each held out a block, in which epochs were chosen.
    """
    dataset = read_dataset(features, spec, plan)
    place = dataset.panel.observed.device
    labels = {Contender.STUDENT: read_block_labels(teachers.folder, place)}
    if unprivileged is not None:
        labels[Contender.UNPRIVILEGED] = read_block_labels(unprivileged.folder, place)
    inputs = {"features": features, "spec": spec, "teachers": teachers, "unprivileged": unprivileged, "plan": plan}
    folder = stage_folder("students", __name__, **inputs)
    fitted = fit_students(
        dataset,
        labels,
        plan.recipe,
        seed=plan.seed,
        replicates=plan.replicates,
        states=_states(dataset, plan, teachers, place),
        checkpoints=lambda name: checkpoint_in(folder, name),
        reports=_reports(features.task, plan.recipe.student.training.epochs),
    )
    histories = {
        name: mean_history([mean_rows(block.progress, block.members[name]) for block in fitted.blocks])
        for name in fitted.trained.networks
    }
    for name, rows in histories.items():
        log_history(run.children[name], rows)
    with folder_written_whole(folder) as part:
        notes: dict[str, object] = {"features": features.digest, "teachers": teachers.digest, "seed": plan.seed}
        _write(part, fitted, dataset, spec, features, notes)
        write_history(part, histories)
        digest = value_digest([file_digest(part / name / WEIGHTS) for name in fitted.trained.networks])
    clear_checkpoints(folder)
    return _manifest(fitted, folder, digest)


def _write(
    folder: Path,
    fitted: FittedStudents,
    dataset: WindowDataset,
    spec: DatasetSpec,
    features: FeaturesManifest,
    notes: dict[str, object],
) -> None:
    """Write networks, what they are averaged with, and what is chosen, exported: the first replicate of it."""
    trained = fitted.trained
    for name, network in trained.networks.items():
        save_network(network, dataset.scalers, folder / name, notes=notes)
    for name, fitted_base in fitted.bases.items():
        write_base(folder / name, fitted_base)
    held_out = {name: fitted.held_out_crps[name] for name in REGISTRABLE}
    write_held_out(folder, held_out)
    chosen = choose(held_out)
    network, base = trained.networks[chosen], fitted.bases.get(chosen)
    until, sizes = features.validation.end_utc, dataset.panel.sizes
    card = student_card(network, spec, trained_until=until, base=base, sizes=sizes)
    first = select_members(network, dataset.scalers, [0])
    export_student(first, dataset.bins, card, folder / EXPORT, base=base)
    if trained.gates is not None:
        write_gate(folder, trained.gates[0].expand(-1, dataset.horizon).mean(dim=0))


def _reports(task: str, epochs: int) -> Callable[[str], Callable[[Progress], None]]:
    """Callbacks that report each training's progress; the last ones hold nothing out."""
    artifacts: dict[str, UUID] = {}

    def reports(name: str) -> Callable[[Progress], None]:
        watched: Literal["train", "validation"] = "validation" if BLOCK_SUFFIX.search(name) else "train"
        return reporter(name, task, epochs, {}, watched=watched, artifacts=artifacts)

    return reports


def _states(
    dataset: WindowDataset, plan: TrainingPlan, teachers: TrainedManifest, place: torch.device
) -> list[States] | None:
    """The hidden states of each block's first teacher where the recipe's terms need them, else None."""
    if not plan.recipe.distillation.terms.needs_hidden_states:
        return None
    first = next(spec for spec in list_teachers(plan.recipe, dataset.horizon_hours) if spec.name == FIRST_TEACHER)
    folders = [block_folder(teachers.folder, number) for number in range(1, BLOCKS + 1)]
    return states_of_blocks(dataset, [{first: load_network(path, place)} for path in folders], seed=plan.seed)


def _manifest(fitted: FittedStudents, folder: Path, digest: str) -> TrainedManifest:
    def best_loss(name: Contender) -> float:
        return fmean(block.progress.best_loss[block.members[name].start] for block in fitted.blocks)

    return TrainedManifest(
        folder=folder,
        digest=digest,
        best_epoch=dict(fitted.epochs),
        best_validation_loss={name: best_loss(name) for name in fitted.epochs},
        epochs=max(block.progress.epoch for block in fitted.blocks),
    )
