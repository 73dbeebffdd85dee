"""Approve: a person decides on the Prefect page whether a version becomes the champion."""

from prefect import flow

from schemas.promotion import ApprovalParameters, Decision, Promoted
from tasks.promotion.decisions import ask, decline, describe_version, set_champion


@flow(name="approve", flow_run_name="approve")
def approve(parameters: ApprovalParameters) -> Promoted:
    """Show a version's figures in a form and wait for a decision; without a decision nothing is promoted.

    Meanwhile the run is suspended, without a process. Resume, on the run's page, opens the form.
    """
    name, version = parameters.name, parameters.version
    form = Decision.with_initial_data(description=describe_version(name, version))
    decision = ask(form, wait_minutes=parameters.wait_minutes)
    if not decision.promote:
        return decline(name, version, by=decision.by, why=decision.why)
    return set_champion(name, version, action="approval", by=decision.by, why=decision.why)
