"""The teachers of a fold, and their soft labels for the students of all recipes that share them."""

from prefect import get_run_logger

from runtime.artifacts import read_dataset, write_labels, write_states
from runtime.caching import checkpoint_in, clear_checkpoints, stage_folder
from runtime.stage import cached_stage
from schemas.retrain import FeaturesManifest
from schemas.study import LabelsManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.pipeline import label_parts, train_teachers
from tutelage.distil.pretrained import pretrained_teacher
from tutelage.distil.recipe import TrainingPlan
from tutelage.distil.teachers import states_taught, weigh_teachers
from tutelage.files import file_digest, folder_written_whole
from tutelage.judge.study import labels_crps


@cached_stage(
    "soft labels",
    run_name="teacher {features.test.start_utc:%Y-%m-%d} future_sigma {plan.recipe.teacher.views.future_sigma}",
    retry_seconds=5,
)
def label_fold(
    features: FeaturesManifest, spec: DatasetSpec, plan: TrainingPlan, *, hidden_states: bool
) -> LabelsManifest:
    """Train a recipe's teachers and write their soft labels and, if requested, hidden states.

    No MLflow run is among the inputs, so all studies with this fold and these teachers share the labels.
    """
    dataset = read_dataset(features, spec, plan)
    folder = stage_folder("labels", __name__, features=features, spec=spec, plan=plan, hidden_states=hidden_states)
    teachers = train_teachers(
        dataset,
        plan.recipe,
        seed=plan.seed,
        pretrained=pretrained_teacher(plan.recipe.teacher, horizon=dataset.horizon),
        checkpoints=lambda name: checkpoint_in(folder, name),
    ).teachers
    weights = weigh_teachers([(teachers, dataset)], plan.recipe, seed=plan.seed)
    labels = label_parts(teachers, dataset, seed=plan.seed, weights=weights)
    with folder_written_whole(folder) as part:
        digest = file_digest(write_labels(part, labels))
        if hidden_states:
            write_states(part, states_taught(teachers, dataset, seed=plan.seed))
    clear_checkpoints(folder)
    crps = labels_crps(labels.test, dataset)
    get_run_logger().info("teachers of %s: CRPS %.4f", features.task, crps)
    return LabelsManifest(folder=folder, digest=digest, teacher_crps=crps)
