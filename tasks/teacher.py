"""Stage 4: the teacher and its soft labels: trained on (x, x*), or a model that is registered already.

Soft labels are computed once, for all parts, and written: students and the evaluation read them.
"""

from statistics import fmean
from typing import Literal

from prefect import task
from prefect.tasks import exponential_backoff
from safetensors.torch import save_file

from schemas.manifests import FeaturesManifest, RunManifest, TrainedManifest
from tasks.caching import content_key, is_transient
from tasks.home import home
from tasks.loading import SOFT_LABELS, load_task, run_folder
from tasks.progress import mean_rows, reporter
from tasks.registered import load_registered
from tutelage.dataset import DatasetSpec
from tutelage.distillation import Task
from tutelage.files import file_digest, folder_written_whole, value_digest, write_json
from tutelage.fit import Progress
from tutelage.networks import Forecaster
from tutelage.recipe import Recipe
from tutelage.teachers import Chair, Teacher, chairs_of, judged, shortened, teach, teach_taught, train_any
from tutelage.weights import save_network

Role = Literal["teacher", "control"]
"""Those with privilege, or those without, whose students tell what privilege brings."""


@task(
    name="train teacher",
    task_run_name="{role} {features.task}",
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def train_teacher(
    features: FeaturesManifest,
    spec: DatasetSpec,
    recipe: Recipe,
    run: RunManifest,
    *,
    seed: int,
    device: str,
    role: Role = "teacher",
) -> TrainedManifest:
    """Train the teachers and write networks and soft labels; checkpoints of this run and features are gone on from.

    The control's teachers have a folder and checkpoints of their own, and no run in MLflow: their students have.
    Raises RegistryError where the recipe names a registered model that can't teach this task, and SpecError where its
    student can't forecast it.
    """
    learning, test = load_task(features, spec, device, unlabelled=recipe.unlabelled)
    # Before the teachers take their time.
    learning.shape(recipe, teacher=False)
    folder = run_folder(home(), run.run_id, role)
    if recipe.teacher_model is None:
        teachers, progress = _train_all(features, learning, recipe, run, seed, role)
    else:
        registered = load_registered(recipe.teacher_model, features, spec)
        [chair] = chairs_of(recipe, learning.horizon)
        teachers, progress = {chair: registered}, {chair.name: judged(registered, learning, recipe, seed=seed)}
        reporter("teacher", features.task, 1, {run.children["teacher"]: mean_rows})(progress[chair.name])
    parts = {"validation": learning.validation, "test": test}
    soft = {name: teach(teachers, learning, origins, seed=seed) for name, origins in parts.items()}
    soft["taught"] = teach_taught(teachers, learning, seed=seed)
    # Only now: a run that is killed while it trains leaves checkpoints and no half-made folder.
    with folder_written_whole(folder) as part:
        notes = {"features": features.digest, "seed": seed}
        for chair, teacher in teachers.items():
            if isinstance(teacher, Forecaster):
                place = part if chair.name == "teacher" else part / chair.name
                save_network(teacher, learning.scalers, place, notes=notes)
        save_file({name: labels.cpu().contiguous() for name, labels in soft.items()}, part / SOFT_LABELS)
        write_json(part / "history.json", {"teacher": mean_rows(progress["teacher"])})
        digest = value_digest([file_digest(file) for file in sorted(part.rglob("*.safetensors"))])
    return TrainedManifest(
        folder=folder,
        digest=digest,
        best_epoch={name: round(fmean(one.best_epoch)) for name, one in progress.items()},
        best_validation_loss={name: fmean(one.best_loss) for name, one in progress.items()},
        epochs=max(one.epoch for one in progress.values()),
    )


def _train_all(
    features: FeaturesManifest, learning: Task, recipe: Recipe, run: RunManifest, seed: int, role: Role
) -> tuple[dict[Chair, Teacher], dict[str, Progress]]:
    """Train all of a recipe's teachers; MLflow hears of the first view's, for the whole horizon."""
    teachers: dict[Chair, Teacher] = {}
    progress: dict[str, Progress] = {}
    for chair in chairs_of(recipe, learning.horizon):
        name = chair.name if role == "teacher" else f"{role}-{chair.name}"
        checkpoint = run_folder(home(), run.run_id, f"{name}-{features.digest[:12]}.safetensors")
        runs = {run.children["teacher"]: mean_rows} if name == "teacher" else {}
        epochs = 1 if recipe.teacher == "boosted" else recipe.teacher_budget.epochs
        report = reporter(name, features.task, epochs, runs)
        own = shortened(learning, chair.horizon)
        teachers[chair], progress[chair.name] = train_any(
            own, chair.recipe, seed=seed, checkpoint=checkpoint, on_epoch=report
        )
    return teachers, progress
