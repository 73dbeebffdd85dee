"""Monitor, stage 3: what was found, shown on the page; an event where the spec's limits are broken."""

import base64

import polars as pl
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from schemas.serving import HealthManifest

DEGRADED = "tutelage.forecast.degraded"


@task(name="publish health", task_run_name="health {health.task}", cache_policy=NO_CACHE, retries=2)
def publish_health(health: HealthManifest) -> None:
    """Publish table and plot; emit the event that starts a retrain, with the reason, where something is broken."""
    daily = pl.read_parquet(health.folder / "daily.parquet")
    create_table_artifact(
        [
            {
                "day (UTC)": str(row["day"]),
                "hours": row["hours"],
                "CRPS": f"{row['crps']:.4f}",
                "CRPS of seasonal naive": f"{row['naive_crps']:.4f}",
                "skill": f"{row['skill']:+.1%}",
                "inside 80 % interval": f"{row['coverage_80']:.1%}",
            }
            for row in daily.iter_rows(named=True)
        ],
        key=f"health-{health.task}",
        description=_sentence(health),
    )
    image = base64.b64encode((health.folder / "health.png").read_bytes()).decode()
    text = f"# {health.task}\n\n{_sentence(health)}\n\n![rolling skill and coverage](data:image/png;base64,{image})\n"
    create_markdown_artifact(text, key=f"health-plot-{health.task}", description=_sentence(health))
    get_run_logger().info("%s: %s", health.task, _sentence(health))
    if health.broken:
        emit_event(
            DEGRADED,
            {"prefect.resource.id": f"tutelage.forecaster.{health.task}", "prefect.resource.name": health.task},
            payload={
                "reason": "; ".join(health.broken),
                "as_of": health.as_of_utc.isoformat(),
                "model_version": health.model_version,
            },
        )


def _sentence(health: HealthManifest) -> str:
    figures = f"over {health.hours} hours the skill is {health.skill:+.1%} and the coverage {health.coverage_80:.1%}"
    return f"degraded: {'; '.join(health.broken)}" if health.broken else f"healthy: {figures}"
