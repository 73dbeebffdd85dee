"""A fleet's retrains in one table."""

from prefect.artifacts import create_table_artifact

from runtime.stage import stage
from schemas.fleet import FleetManifest, FleetRow


@stage("summarise fleet", run_name="summarise fleet")
def summarise_fleet(rows: list[FleetRow]) -> FleetManifest:
    """Publish the table, those without a new version first."""
    done = FleetManifest(rows=rows)
    shown = [row.model_dump() for row in sorted(rows, key=lambda row: row.version is not None)]
    what = f"{len(rows) - len(done.failed)} of {len(rows)} have a new version"
    create_table_artifact(shown, key="fleet", description=what)
    return done
