"""Rollback: make an earlier version the champion again."""

from prefect import flow

from schemas.promotion import Promoted, RollbackParameters
from tasks.promotion.decisions import set_champion


@flow(name="rollback", flow_run_name="rollback")
def rollback(parameters: RollbackParameters) -> Promoted:
    """Set `@champion` to an earlier version, and record who did it and why in that version's tags."""
    return set_champion(parameters.name, parameters.version, action="rollback", by=parameters.by, why=parameters.why)
