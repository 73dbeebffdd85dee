"""All teachers of a recipe, trained on (x, x*) or loaded from the registry, and their soft labels.

Soft labels are computed once for all parts and written to a file that students and evaluation read.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from runtime.artifacts import read_dataset, write_history, write_labels
from runtime.caching import checkpoint_in, clear_checkpoints, stage_folder
from runtime.progress import mean_rows, reporter
from runtime.registered_teacher import load_registered
from runtime.stage import cached_stage
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest, TrainedManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.pipeline import TrainedTeachers, label_parts, train_teachers
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
    """Train the teachers and write networks and soft labels; training resumes from checkpoints.

    plan: that of the teachers (`TrainingPlan.of_teachers`), so that changes to the students don't retrain them
    role: `teacher`, or `unprivileged` for the teachers of unprivileged students, which have no MLflow run

    Raises RegistryError where the recipe names a registered model that can't teach this task.
    """
    dataset = read_dataset(features, spec, plan)
    folder = stage_folder(role.value, __name__, features=features, spec=spec, plan=plan)
    model = plan.recipe.teacher.registered_model
    trained = train_teachers(
        dataset,
        plan.recipe,
        seed=plan.seed,
        registered=None if model is None else load_registered(model, features, spec),
        checkpoints=lambda name: checkpoint_in(folder, name),
        reports=_reports(features.task, plan.recipe, run, role),
    )
    labels = label_parts(trained.teachers, dataset, seed=plan.seed)
    # After training: a run that is killed before leaves checkpoints, but no incomplete folder.
    with folder_written_whole(folder) as part:
        _save_networks(trained, dataset.scalers, part, {"features": features.digest, "seed": plan.seed})
        write_labels(part, labels)
        write_history(part, {role: mean_rows(trained.progress[FIRST_TEACHER])})
        digest = value_digest([file_digest(file) for file in sorted(part.rglob("*.safetensors"))])
    clear_checkpoints(folder)
    return TrainedManifest(
        folder=folder,
        digest=digest,
        best_epoch={name: round(fmean(each.best_epoch)) for name, each in trained.progress.items()},
        best_validation_loss={name: fmean(each.best_loss) for name, each in trained.progress.items()},
        epochs=max(each.epoch for each in trained.progress.values()),
    )


def _reports(
    task: str, recipe: Recipe, run: RunManifest, role: Contender
) -> Callable[[str], Callable[[Progress], None]]:
    """Callbacks that report each teacher's progress; that of the first also goes to the teacher's MLflow run."""
    has_epochs = recipe.teacher.kind != "boosted" and recipe.teacher.registered_model is None
    epochs = recipe.teacher.training.epochs if has_epochs else 1

    def reports(name: str) -> Callable[[Progress], None]:
        first = role is Contender.TEACHER and name == FIRST_TEACHER
        runs = {run.children[Contender.TEACHER]: mean_rows} if first else {}
        label = name if role is Contender.TEACHER else f"{role.value}-{name}"
        return reporter(label, task, epochs, runs)

    return reports


def _save_networks(trained: TrainedTeachers, scalers: Scalers, folder: Path, notes: dict[str, object]) -> None:
    """Write the first teacher to the folder itself, the others to subfolders by name. Trees are not written."""
    for spec, teacher in trained.teachers.items():
        if isinstance(teacher, Forecaster):
            place = folder if spec.name == FIRST_TEACHER else folder / spec.name
            save_network(teacher, scalers, place, notes=notes)
