"""The two kinds of stages: those with a cached result, and those that run every time."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from runtime.caching import content_key
from tutelage.errors import TutelageError, UnreachableError

P = ParamSpec("P")
R = TypeVar("R")

RETRIES = 2


def is_transient(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a retry can help: not for a fault of the input or the configuration."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, UnreachableError) or not isinstance(error, TutelageError)


def cached_stage(name: str, *, run_name: str, retry_seconds: int = 2) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A stage that does not run again for inputs with the same content and the same code (`content_key`)."""
    return task(
        name=name,
        task_run_name=run_name,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(retry_seconds),
        retry_condition_fn=is_transient,
        cache_key_fn=content_key,
        persist_result=True,
        result_serializer="json",
    )


def stage(name: str, *, run_name: str, retry_seconds: int = 2) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A stage that runs every time: it publishes something, or depends on external state."""
    return task(
        name=name,
        task_run_name=run_name,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(retry_seconds),
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,
    )
