"""A look at a dataset without training."""

from runtime.artifacts import read_dataset
from runtime.stage import stage
from schemas.retrain import FeaturesManifest, PreviewManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.recipe import TrainingPlan
from tutelage.judge.preview import preview


@stage("preview", run_name="preview {features.task}")
def preview_dataset(features: FeaturesManifest, spec: DatasetSpec) -> PreviewManifest:
    """Score the simple forecasts on the validation part, and measure what lies within the hours."""
    seen = preview(read_dataset(features, spec, TrainingPlan(device="cpu")))
    return PreviewManifest(scores=dict(seen.scores), within_steps=seen.within_steps)
