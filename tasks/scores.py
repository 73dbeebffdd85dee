"""Study, stage 6: the students of recipes that share a teacher, trained side by side and scored."""

from prefect import get_run_logger, task
from prefect.tasks import exponential_backoff
from safetensors.torch import load_file
from torch import Tensor

from schemas.manifests import FeaturesManifest
from schemas.study import LabelsManifest, ScoresManifest
from tasks.caching import content_key, is_transient
from tasks.home import home
from tasks.loading import load_task, piece_checkpoint
from tutelage.bodies import States
from tutelage.dataset import DatasetSpec
from tutelage.distillation import mean_labels
from tutelage.recipe import Recipe
from tutelage.study import score_lesson, side_by_side_states


@task(
    name="score students",
    task_run_name="students {features.test.start_utc:%Y-%m-%d}",
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def score_students(
    features: FeaturesManifest,
    spec: DatasetSpec,
    labels: list[LabelsManifest],
    recipes: list[Recipe],
    *,
    seeds: list[int],
    seed: int,
    device: str,
) -> ScoresManifest:
    """Train one student a recipe and seed on the labels (averaged where they are several; twins have none)."""
    learning, scored = load_task(features, spec, device)
    place = learning.panel.observed.device
    taught = [load_file(each.folder / "labels.safetensors", device=str(place)) for each in labels]
    states = [_states(each) for each in taught if "states.hidden" in each]
    content = [features.digest, [each.digest for each in labels], [r.model_dump(mode="json") for r in recipes]]
    checkpoint = piece_checkpoint(home(), "students", *content, seeds, seed, device)
    found = score_lesson(
        learning,
        scored,
        recipes,
        soft=mean_labels([each["soft"] for each in taught]) if taught else None,
        states=side_by_side_states(states) if states else None,
        seeds=seeds,
        seed=seed,
        checkpoint=checkpoint,
    )
    checkpoint.unlink(missing_ok=True)
    get_run_logger().info("%s: %d students, CRPS %.4f", features.task, found.size, found.mean())
    return ScoresManifest(crps=found.tolist())


def _states(tensors: dict[str, Tensor]) -> States:
    """The states among what was kept of a teacher."""
    kept = {name.removeprefix("states."): value for name, value in tensors.items() if name.startswith("states.")}
    return States(**kept)
