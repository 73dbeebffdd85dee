"""The data quality, published for each run, also where validation came from the cache."""

from prefect.artifacts import create_table_artifact

from runtime.stage import stage
from schemas.quality import quality_rows
from schemas.retrain import ValidatedManifest
from tutelage.data.dataset import DatasetSpec


@stage("publish quality", run_name="quality {spec.name}")
def publish_quality(validated: ValidatedManifest, spec: DatasetSpec) -> None:
    """Publish the number of rows that break each rule as a table artifact."""
    create_table_artifact(
        quality_rows(validated.rules),
        key=f"quality-{spec.name}",
        description="The quality rules, and the number of rows that break each.",
    )
