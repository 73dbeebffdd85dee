"""All teachers of a recipe, trained on (x, x*) or loaded from the registry, and their soft labels.

Soft labels are computed once for all parts and written to a file that students and evaluation read.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from uuid import UUID

from runtime.artifacts import block_folder, read_dataset, write_block_labels, write_history
from runtime.caching import checkpoint_in, clear_checkpoints, stage_folder
from runtime.progress import mean_history, mean_rows, reporter
from runtime.registered_teacher import load_registered
from runtime.runs import log_history
from runtime.stage import cached_stage
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest, TrainedManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.blocks import fit_teachers
from tutelage.distil.pipeline import TrainedTeachers
from tutelage.distil.pretrained import pretrained_teacher
from tutelage.distil.recipe import Recipe, TrainingPlan
from tutelage.distil.teachers import FIRST_TEACHER
from tutelage.files import file_digest, folder_written_whole, value_digest
from tutelage.forecasts import Contender
from tutelage.model.networks import Forecaster
from tutelage.model.scaling import Scalers
from tutelage.model.training import Progress
from tutelage.model.weights import save_network


@cached_stage("train teachers", run_name="{role.value} {features.task}", retry_seconds=5)
def train_all_teachers(
    features: FeaturesManifest, spec: DatasetSpec, plan: TrainingPlan, run: RunManifest, *, role: Contender
) -> TrainedManifest:
    """Train the teachers of each block and write networks and soft labels; training resumes from checkpoints.

    plan: that of the teachers (`TrainingPlan.of_teachers`), so that changes to the students don't retrain them
    role: `teacher`, or `unprivileged` for the teachers of unprivileged students, which have no MLflow run

    Raises RegistryError where the recipe names a registered model that can't teach this task, and TutelageError where
    it names a pretrained one that isn't there, or is another than its digest says.
    """
    dataset = read_dataset(features, spec, plan)
    folder = stage_folder(role.value, __name__, features=features, spec=spec, plan=plan)
    recipe = plan.recipe.teacher
    model = recipe.registered_model
    fitted = fit_teachers(
        dataset,
        plan.recipe,
        seed=plan.seed,
        registered=None if model is None else load_registered(model, features, spec, digest=recipe.registered_digest),
        pretrained=pretrained_teacher(recipe, horizon=dataset.horizon),
        checkpoints=lambda name: checkpoint_in(folder, name),
        reports=_reports(features.task, plan.recipe, role),
    )
    history = mean_history([mean_rows(block.progress[FIRST_TEACHER]) for block in fitted.blocks])
    if role is Contender.TEACHER:
        log_history(run.children[role], history)
    # After training: a run that is killed before leaves checkpoints, but no incomplete folder.
    with folder_written_whole(folder) as part:
        notes: dict[str, object] = {"features": features.digest, "seed": plan.seed}
        for number, block in enumerate(fitted.blocks, start=1):
            _save_networks(block, dataset.scalers, block_folder(part, number), notes)
        write_block_labels(part, fitted.labels)
        write_history(part, {role: history})
        digest = value_digest([file_digest(file) for file in sorted(part.rglob("*.safetensors"))])
    clear_checkpoints(folder)
    every = [progress for block in fitted.blocks for progress in block.progress.items()]
    losses = {name: [fmean(each.best_loss) for other, each in every if other == name] for name in fitted.epochs}
    return TrainedManifest(
        folder=folder,
        digest=digest,
        best_epoch=fitted.epochs,
        best_validation_loss={name: fmean(values) for name, values in losses.items()},
        epochs=max(each.epoch for _, each in every),
        weights=fitted.weights,
    )


def _reports(task: str, recipe: Recipe, role: Contender) -> Callable[[str], Callable[[Progress], None]]:
    """Callbacks that report each teacher's progress."""
    has_epochs = recipe.teacher.kind != "boosted" and recipe.teacher.registered_model is None
    epochs = recipe.teacher.training.epochs if has_epochs else 1

    artifacts: dict[str, UUID] = {}

    def reports(name: str) -> Callable[[Progress], None]:
        label = name if role is Contender.TEACHER else f"{role.value}-{name}"
        return reporter(label, task, epochs, {}, artifacts=artifacts)

    return reports


def _save_networks(trained: TrainedTeachers, scalers: Scalers, folder: Path, notes: dict[str, object]) -> None:
    """Write the first teacher to the folder itself, the others to subfolders by name. Trees are not written."""
    for spec, teacher in trained.teachers.items():
        if isinstance(teacher, Forecaster):
            place = folder if spec.name == FIRST_TEACHER else folder / spec.name
            save_network(teacher, scalers, place, notes=notes)
