"""Training of students and twins, and the export of the first replicate."""

from functools import partial
from pathlib import Path
from statistics import fmean

import torch

from runtime.artifacts import EXPORT, read_dataset, read_labels, write_base, write_gate, write_history
from runtime.caching import checkpoint_in, clear_checkpoints, stage_folder
from runtime.progress import mean_rows, reporter
from runtime.stage import cached_stage
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest, TrainedManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pipeline import TrainedStudents, distil_students
from tutelage.distil.recipe import TrainingPlan
from tutelage.distil.teachers import FIRST_TEACHER, list_teachers, states_taught
from tutelage.files import file_digest, folder_written_whole, value_digest
from tutelage.forecasts import Contender
from tutelage.judge.verdict import REGISTRABLE, find_base
from tutelage.model.architectures import States
from tutelage.model.export import export_student, student_card
from tutelage.model.linear import Base
from tutelage.model.networks import select_members
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
    """Train students, unprivileged students and twins side by side, and export the first student and the first twin.

    One of these two may be registered. The other replicates are for the verdict, because a single one can be lucky.
    """
    dataset = read_dataset(features, spec, plan)
    place = dataset.panel.observed.device
    labels = {Contender.STUDENT: read_labels(teachers.folder, place)}
    if unprivileged is not None:
        labels[Contender.UNPRIVILEGED] = read_labels(unprivileged.folder, place)
    inputs = {"features": features, "spec": spec, "teachers": teachers, "unprivileged": unprivileged, "plan": plan}
    folder = stage_folder("students", __name__, **inputs)
    names = [*labels, Contender.TWIN]
    members = {name: slice(at * plan.replicates, (at + 1) * plan.replicates) for at, name in enumerate(names)}
    runs = {run.children[name]: partial(mean_rows, members=at) for name, at in members.items()}
    trained = distil_students(
        dataset,
        labels,
        plan.recipe,
        seed=plan.seed,
        replicates=plan.replicates,
        states=_states(dataset, plan, teachers, place),
        checkpoints=lambda name: checkpoint_in(folder, name),
        reports=lambda name: reporter(name, features.task, plan.recipe.student.training.epochs, runs),
    )
    base = _base(dataset, trained, plan)
    with folder_written_whole(folder) as part:
        notes = {"features": features.digest, "teachers": teachers.digest, "seed": plan.seed}
        for name, network in trained.networks.items():
            save_network(network, dataset.scalers, part / name, notes=notes)
        for name in REGISTRABLE:
            card = student_card(trained.networks[name], spec, trained_until=features.validation.end_utc)
            first = select_members(trained.networks[name], dataset.scalers, [0])
            export_student(first, dataset.bins, card, part / name / EXPORT, base=base)
        if base is not None:
            write_base(part, base)
        if trained.gates is not None:
            write_gate(part, trained.gates[0].expand(-1, dataset.horizon).mean(dim=0))
        write_history(part, {name: mean_rows(trained.progress, at) for name, at in trained.members.items()})
        digest = value_digest([file_digest(part / name / WEIGHTS) for name in trained.networks])
    clear_checkpoints(folder)
    return _manifest(trained, folder, digest)


def _states(
    dataset: WindowDataset, plan: TrainingPlan, teachers: TrainedManifest, place: torch.device
) -> States | None:
    """The hidden states of the first teacher where the recipe's terms need them, else None."""
    if not plan.recipe.distillation.terms.needs_hidden_states:
        return None
    specs = list_teachers(plan.recipe, dataset.horizon)
    first = next(spec for spec in specs if spec.name == FIRST_TEACHER)
    return states_taught({first: load_network(teachers.folder, place)}, dataset, seed=plan.seed)


def _base(dataset: WindowDataset, trained: TrainedStudents, plan: TrainingPlan) -> Base | None:
    """What student and twin are averaged with, where the recipe has it and there are enough windows."""
    student = plan.recipe.student
    if student.base == "none" or student.head == "point":
        return None
    return find_base(dataset, trained.networks[Contender.TWIN])


def _manifest(trained: TrainedStudents, folder: Path, digest: str) -> TrainedManifest:
    progress = trained.progress
    return TrainedManifest(
        folder=folder,
        digest=digest,
        best_epoch={name: round(fmean(progress.best_epoch[at])) for name, at in trained.members.items()},
        best_validation_loss={name: fmean(progress.best_loss[at]) for name, at in trained.members.items()},
        epochs=progress.epoch,
    )
