"""A version's figures for the person who decides, and the decision on the registry."""

import datetime as dt

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from schemas.promotion import Promoted
from tasks.caching import is_transient
from tasks.tracking import champion_version, client
from tutelage.errors import RegistryError


def _version(name: str, version: int) -> ModelVersion:
    try:
        return client().get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise RegistryError(f"{name} has no version {version}") from None


@task(name="describe", task_run_name="describe {name} {version}", cache_policy=NO_CACHE, retries=2)
def describe_version(name: str, version: int) -> str:
    """What a person should know to decide: the version's card, and how it compares with the champion.

    Raises RegistryError where there is no such version.
    """
    found = _version(name, version)
    champion = champion_version(name)
    against = f"The champion is version {champion}." if champion else "There is no champion."
    return f"{against} {found.tags.get('promotion', '')}\n\n{found.description or ''}"


@task(
    name="set champion",
    task_run_name="champion {name} {version}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def set_champion(name: str, version: int, *, deed: str, by: str, why: str) -> Promoted:
    """Make a version the champion; its tags say who did it, why, when, and which version was it before.

    deed: the tags' prefix, `approval` or `rollback`. Raises RegistryError where there is no such version.
    """
    _version(name, version)
    before = champion_version(name)
    tags = {"by": by, "why": why, "from": before or "none", "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
    for tag, value in tags.items():
        client().set_model_version_tag(name, str(version), f"{deed}.{tag}", value)
    client().set_registered_model_alias(name, "champion", str(version))
    get_run_logger().info("%s: champion %s after %s, by %s: %s", name, version, before or "none", by, why)
    return Promoted(name=name, before=before, after=str(version))


@task(name="decline", task_run_name="decline {name} {version}", cache_policy=NO_CACHE, retries=2)
def decline(name: str, version: int, *, by: str, why: str) -> Promoted:
    """Leave the champion as it is, and keep with the version who declined it, and why."""
    client().set_model_version_tag(name, str(version), "approval.declined", f"{by}: {why}")
    champion = champion_version(name)
    return Promoted(name=name, before=champion, after=champion)
