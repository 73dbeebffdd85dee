"""The quality of the data, published for each run, also where it came from cache."""

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from schemas.manifests import ValidatedManifest
from schemas.quality import quality_rows
from tutelage.dataset import DatasetSpec


@task(name="publish quality", task_run_name="quality {spec.name}", cache_policy=NO_CACHE, retries=2)
def publish_quality(validated: ValidatedManifest, spec: DatasetSpec) -> None:
    """Show what broke which rule as a table artifact."""
    create_table_artifact(
        quality_rows(validated.rules),
        key=f"quality-{spec.name}",
        description="What was looked for, and found.",
    )
