"""Study, stage 5: a fold's teacher, and what it tells the students of all recipes that share it."""

from prefect import get_run_logger, task
from prefect.tasks import exponential_backoff
from safetensors.torch import save_file

from schemas.manifests import FeaturesManifest
from schemas.study import LabelsManifest
from tasks.caching import content_key, is_transient
from tasks.home import home
from tasks.loading import load_task, piece_checkpoint
from tutelage.dataset import DatasetSpec
from tutelage.distillation import hidden_states, soft_labels, train_teacher
from tutelage.files import file_digest, folder_written_whole
from tutelage.recipe import Recipe
from tutelage.study import labels_crps


@task(
    name="soft labels",
    task_run_name="teacher {features.test.start_utc:%Y-%m-%d} future_sigma {recipe.views.future_sigma}",
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def label_windows(
    features: FeaturesManifest, spec: DatasetSpec, recipe: Recipe, *, hidden: bool, seed: int, device: str
) -> LabelsManifest:
    """Train a teacher and keep its soft labels (and, where asked for, hidden states) of the training windows.

    No MLflow run is among the inputs: every study with this fold and this teacher takes the same labels.
    """
    learning, scored = load_task(features, spec, device)
    content = [features.digest, recipe.model_dump(mode="json"), seed, device]
    checkpoint = piece_checkpoint(home(), "teacher", *content)
    teacher, progress = train_teacher(learning, recipe, seed=seed, checkpoint=checkpoint)
    tensors = {"soft": soft_labels(teacher, learning, learning.train, recipe, seed=seed)}
    if hidden:
        tensors["hidden"] = hidden_states(teacher, learning, learning.train, recipe, seed=seed)
    own = labels_crps(soft_labels(teacher, learning, scored, recipe, seed=seed), learning, scored)
    folder = home() / "data" / "labels" / checkpoint.stem
    with folder_written_whole(folder) as part:
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, part / "labels.safetensors")
        digest = file_digest(part / "labels.safetensors")
    checkpoint.unlink(missing_ok=True)
    get_run_logger().info("teacher of %s: %d epochs, CRPS %.4f", features.task, progress.epoch, own)
    return LabelsManifest(folder=folder, digest=digest, teacher_crps=own)
