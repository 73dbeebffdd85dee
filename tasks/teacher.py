"""Stage 4: the teacher, an ensemble on (x, x*), trained with a checkpoint that a retry goes on from."""

from prefect import task
from prefect.tasks import exponential_backoff

from schemas.manifests import FeaturesManifest, RunManifest, TrainedManifest
from tasks.caching import content_key, is_transient
from tasks.home import home
from tasks.loading import load_task, run_folder
from tasks.progress import mean_rows, reporter
from tutelage.dataset import DatasetSpec
from tutelage.distillation import train_teacher as train
from tutelage.files import file_digest, folder_written_whole, write_json
from tutelage.recipe import Recipe
from tutelage.weights import save_network


@task(
    name="train teacher",
    task_run_name="teacher {features.task}",
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def train_teacher(
    features: FeaturesManifest, spec: DatasetSpec, recipe: Recipe, run: RunManifest, *, seed: int, device: str
) -> TrainedManifest:
    """Train the ensemble and write its weights; a checkpoint of this run and these features is gone on from."""
    learning, _ = load_task(features, spec, device)
    folder = run_folder(home(), run.run_id, "teacher")
    checkpoint = run_folder(home(), run.run_id, f"teacher-{features.digest[:12]}.safetensors")
    report = reporter("teacher", features.task, recipe.teacher_budget.epochs, {run.children["teacher"]: mean_rows})
    teacher, progress = train(learning, recipe, seed=seed, checkpoint=checkpoint, on_epoch=report)
    with folder_written_whole(folder) as part:
        save_network(teacher, learning.scalers, part, notes={"features": features.digest, "seed": seed})
        write_json(part / "history.json", {"teacher": mean_rows(progress)})
        digest = file_digest(part / "weights.safetensors")
    return TrainedManifest(
        folder=folder,
        digest=digest,
        best_epoch={"teacher": round(sum(progress.best_epoch) / len(progress.best_epoch))},
        best_validation_loss={"teacher": sum(progress.best_loss) / len(progress.best_loss)},
        epochs=progress.epoch,
    )
