"""Roll back: an earlier version becomes the champion again."""

from prefect import flow

from schemas.promotion import Promoted, RollbackParameters
from tasks.promotion import set_champion


@flow(name="rollback", flow_run_name="rollback")
def rollback(parameters: RollbackParameters) -> Promoted:
    """Set `@champion` to an earlier version, and write who and why into that version's tags."""
    return set_champion(parameters.name, parameters.version, deed="rollback", by=parameters.by, why=parameters.why)
