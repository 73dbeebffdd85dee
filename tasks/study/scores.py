"""Training and scoring of students whose recipes share a teacher, side by side."""

from prefect import get_run_logger

from runtime.artifacts import read_dataset, read_labels, read_states
from runtime.caching import checkpoint_in, clear_checkpoints, stage_folder
from runtime.stage import cached_stage
from schemas.retrain import FeaturesManifest
from schemas.study import LabelsManifest, ScoresManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.ensemble import average_states
from tutelage.distil.recipe import Recipe, TrainingPlan
from tutelage.distil.soft_labels import mean_labels
from tutelage.judge.study import score_group


@cached_stage("score students", run_name="students {features.test.start_utc:%Y-%m-%d}", retry_seconds=5)
def score_students(
    features: FeaturesManifest,
    spec: DatasetSpec,
    labels: list[LabelsManifest],
    recipes: list[Recipe],
    plan: TrainingPlan,
    *,
    seeds: list[int],
) -> ScoresManifest:
    """Train one student per recipe and seed on the mean of the labels; twins have no labels."""
    dataset = read_dataset(features, spec, plan)
    place = dataset.panel.observed.device
    parts = [read_labels(each.folder, place) for each in labels]
    states = [state for each in labels if (state := read_states(each.folder, place)) is not None]
    inputs = {"features": features, "labels": labels, "recipes": recipes, "seeds": seeds, "plan": plan}
    folder = stage_folder("scores", __name__, **inputs)
    scores = score_group(
        dataset,
        recipes,
        soft=mean_labels([each.taught for each in parts]) if parts else None,
        held_out=mean_labels([each.validation for each in parts]) if parts else None,
        states=average_states(states) if states else None,
        seeds=seeds,
        seed=plan.seed,
        checkpoint=checkpoint_in(folder, "students"),
    )
    clear_checkpoints(folder)
    get_run_logger().info("%s: %d students, CRPS %.4f", features.task, scores.size, scores.mean())
    return ScoresManifest(crps=scores.tolist())
