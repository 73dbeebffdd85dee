"""The refit: the chosen network, trained again on the whole history, to be registered."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from runtime.artifacts import EXPORT, read_base, read_gate, read_panel, with_other_sites
from runtime.caching import checkpoint_in, clear_checkpoints, stage_folder
from runtime.leaks import check_exported
from runtime.progress import reporter
from runtime.registered_teacher import load_registered
from runtime.stage import cached_stage
from schemas.retrain import EvaluationManifest, FeaturesManifest, ReadingsManifest, RefitManifest, TrainedManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.base import fit_base
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pipeline import train_teachers
from tutelage.distil.pretrained import pretrained_teacher
from tutelage.distil.recipe import TrainingPlan
from tutelage.distil.refit import refit_dataset, refit_student
from tutelage.distil.soft_labels import SoftLabels
from tutelage.distil.teachers import forecast_exported, label_taught, states_taught
from tutelage.files import file_digest, folder_written_whole
from tutelage.forecasts import Contender
from tutelage.judge.fidelity import check_fidelity, compared
from tutelage.model.architectures import States
from tutelage.model.export import export_student, student_card
from tutelage.model.inference import load_student
from tutelage.model.training import Progress, choose_device
from tutelage.model.weights import WEIGHTS, save_network


@cached_stage("refit", run_name="refit {features.task}", retry_seconds=5)
def refit(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    evaluation: EvaluationManifest,
    plan: TrainingPlan,
) -> RefitManifest:
    """Train teachers and the chosen network on train, validation and test part, and export that network.

    Raises LeakError where the exported student sees data that it must not see, ExportError where it forecasts other
    values than the network.
    """
    panel = read_panel(features, spec).to(choose_device(plan.device))
    lookback, horizon = map(spec.grid.steps, (features.lookback_hours, features.horizon_hours))
    dataset = refit_dataset(panel, features.parts, plan.recipe, lookback=lookback, horizon=horizon)
    for_teachers = with_other_sites(dataset, features, until=features.test.end_utc)
    chosen = evaluation.evaluation.chosen
    folder = stage_folder("refit", __name__, features=features, students=students, chosen=chosen, plan=plan)
    soft, states = None, None
    epochs = {"student": students.best_epoch[chosen]}
    if chosen is Contender.STUDENT:
        epochs |= {} if plan.recipe.teacher.registered_model else teachers.best_epoch
        dataset = for_teachers if plan.recipe.distillation.transfer else dataset
        soft, states = _labels(for_teachers, dataset, features, spec, teachers, plan, folder)
    gate = read_gate(students.folder)
    network = refit_student(
        dataset,
        plan.recipe,
        soft=soft,
        gate=None if gate is None else torch.tensor(gate, device=panel.observed.device),
        states=states,
        epochs=epochs["student"],
        seed=plan.seed,
        checkpoint=checkpoint_in(folder, "student"),
        on_epoch=reporter(f"refit of the {chosen.label}", features.task, epochs["student"], {}, watched="train"),
    )
    base = read_base(students.folder / chosen)
    if base is not None:
        base = replace(fit_base(dataset, base.weights, pretrained=base.pretrained), atom=base.atom)
    with folder_written_whole(folder) as part:
        save_network(network, dataset.scalers, part, notes={"features": features.digest, "seed": plan.seed})
        card = student_card(network, spec, trained_until=features.test.end_utc, base=base, sizes=panel.sizes)
        export_student(network, dataset.bins, card, part / EXPORT, base=base)
        digest, exported = file_digest(part / WEIGHTS), load_student(part / EXPORT)
        windows = dataset.train[compared(len(dataset.train))]
        check_fidelity(forecast_exported(exported, dataset, windows), network, base, dataset, windows)
        checked = check_exported(readings, spec, exported, features, seed=plan.seed).checked
    clear_checkpoints(folder)
    return RefitManifest(
        folder=folder,
        digest=digest,
        start_utc=features.train.start_utc,
        end_utc=features.test.end_utc,
        windows=len(dataset.train),
        epochs=epochs,
        leak_checks=checked,
    )


def _labels(
    for_teachers: WindowDataset,
    dataset: WindowDataset,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    plan: TrainingPlan,
    folder: Path,
) -> tuple[SoftLabels, States | None]:
    """Soft labels of the refit teachers, and the hidden states of the first where the recipe's terms need them."""
    recipe = plan.recipe.teacher
    model = recipe.registered_model

    def reports(name: str) -> Callable[[Progress], None]:
        return reporter(f"refit of {name}", features.task, teachers.best_epoch[name], {}, watched="train")

    refitted = train_teachers(
        for_teachers,
        plan.recipe,
        seed=plan.seed,
        registered=None if model is None else load_registered(model, features, spec, digest=recipe.registered_digest),
        pretrained=pretrained_teacher(recipe, horizon=dataset.horizon),
        epochs=teachers.best_epoch,
        checkpoints=lambda name: checkpoint_in(folder, name),
        reports=reports,
    ).teachers
    soft = label_taught(refitted, dataset, seed=plan.seed, weights=teachers.weights)
    if not plan.recipe.distillation.terms.needs_hidden_states:
        return soft, None
    return soft, states_taught(refitted, dataset, seed=plan.seed)
