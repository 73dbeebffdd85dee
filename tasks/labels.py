"""Study, stage 5: a fold's teachers, and what it tells the students of all recipes that share it."""

from prefect import get_run_logger, task
from prefect.tasks import exponential_backoff
from safetensors.torch import save_file

from schemas.manifests import FeaturesManifest
from schemas.study import LabelsManifest
from tasks.caching import content_key, is_transient
from tasks.home import home
from tasks.loading import load_task, piece_checkpoint
from tutelage.dataset import DatasetSpec
from tutelage.files import file_digest, folder_written_whole
from tutelage.recipe import Recipe
from tutelage.study import labels_crps
from tutelage.teachers import chairs_of, first_states_taught, shortened, teach, teach_taught, train_any


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
    features: FeaturesManifest, spec: DatasetSpec, recipe: Recipe, *, inside: bool, seed: int, device: str
) -> LabelsManifest:
    """Train a recipe's teachers and keep their soft labels (and, where asked for, states) of the training windows.

    No MLflow run is among the inputs: every study with this fold and these teachers takes the same labels.
    """
    learning, scored = load_task(features, spec, device)
    content = [features.digest, recipe.model_dump(mode="json"), seed, device]
    key, teachers, checkpoints = piece_checkpoint(home(), "teacher", *content), {}, []
    for chair in chairs_of(recipe, learning.horizon):
        checkpoints.append(key.with_name(f"{key.stem}-{chair.name}.safetensors"))
        own = shortened(learning, chair.horizon)
        teachers[chair], _ = train_any(own, chair.recipe, seed=seed, checkpoint=checkpoints[-1])
    tensors = {"soft": teach_taught(teachers, learning, seed=seed)}
    if inside:
        states = first_states_taught(teachers, learning, seed=seed)
        tensors |= {f"states.{name}": value for name, value in vars(states).items() if value is not None}
    crps = labels_crps(teach(teachers, learning, scored, seed=seed), learning, scored)
    folder = home() / "data" / "labels" / key.stem
    with folder_written_whole(folder) as part:
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, part / "labels.safetensors")
        digest = file_digest(part / "labels.safetensors")
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    get_run_logger().info("teachers of %s: CRPS %.4f", features.task, crps)
    return LabelsManifest(folder=folder, digest=digest, teacher_crps=crps)
