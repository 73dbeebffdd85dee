"""Tidy: remove caches that nothing uses any more, and results that are old, before the disk is full."""

from prefect import flow

from schemas.tidy import TidiedManifest, TidyParameters
from tasks.tidy.old import remove_old


@flow(name="tidy", flow_run_name="tidy")
def tidy(parameters: TidyParameters) -> TidiedManifest:
    """Remove what is old from the service's home; registered models and MLflow's runs stay."""
    return remove_old(parameters)
