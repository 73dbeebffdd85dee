"""The health of stored forecasts on the Prefect page, and an event where they break the spec's limits."""

import base64

import polars as pl
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from runtime.health import record_request
from runtime.stage import stage
from schemas.monitor import HealthManifest

DEGRADED = "tutelage.forecast.degraded"


@stage("publish health", run_name="health {health.task}")
def publish_health(health: HealthManifest) -> None:
    """Publish table and plot; where a retrain is asked for, emit the event that starts it, with the reason."""
    daily = pl.read_parquet(health.folder / "daily.parquet")
    create_table_artifact(
        [
            {
                "day (UTC)": str(row["day"]),
                "hours": row["hours"],
                "CRPS": f"{row['crps']:.4f}",
                "CRPS of seasonal naive": f"{row['naive_crps']:.4f}",
                "skill": "" if row["skill"] is None else f"{row['skill']:+.1%}",
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
    if health.asks:
        emit_event(
            DEGRADED,
            {"prefect.resource.id": f"tutelage.forecaster.{health.task}", "prefect.resource.name": health.task},
            payload={
                "reason": "; ".join(health.broken),
                "as_of": health.as_of_utc.isoformat(),
                "model_version": health.model_version,
            },
        )
        # Not before: a run that ended in between would have asked nobody, and say that it had.
        record_request(health)


def _sentence(health: HealthManifest) -> str:
    if health.broken:
        since = "" if health.asks else f" (a retrain was asked for as of {health.asked_utc:%Y-%m-%d %H:%M} UTC)"
        return f"degraded: {'; '.join(health.broken)}{since}"
    if health.coverage_80 is None:
        return f"no hour that version {health.model_version} has forecast has come true yet"
    skill = "" if health.skill is None else f"the skill is {health.skill:+.1%} and "
    return f"healthy: over {health.hours} hours {skill}the coverage {'' if skill else 'is '}{health.coverage_80:.1%}"
