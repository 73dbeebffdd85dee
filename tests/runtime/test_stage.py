import uuid

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from runtime.caching import content_key
from runtime.stage import RETRIES, cached_stage, is_transient, stage
from tutelage.errors import (
    BusyError,
    DataError,
    LeakError,
    QualityError,
    RegistryError,
    SpecError,
    TutelageError,
    UnreachableError,
)


@cached_stage("ingest", run_name="ingest {name}", retry_seconds=3)
def cached(name: str) -> str:
    """What a stage does."""
    return name.upper()


@stage("report", run_name="report {name}")
def each_time(name: str) -> str:
    """What another stage does."""
    return name.upper()


RUN = TaskRun(task_key="t", dynamic_key="0", flow_run_id=uuid.UUID(int=1))


@pytest.mark.parametrize(
    "kind", [TutelageError, SpecError, DataError, QualityError, LeakError, RegistryError, BusyError]
)
def test_is_transient__a_fault_of_the_input_is_not(kind: type[Exception]) -> None:
    assert is_transient(cached, RUN, Failed(data=kind("a fault"))) is False


@pytest.mark.parametrize(
    "error",
    [
        OSError("a full disk"),
        ConnectionError("no server"),
        RuntimeError("CUDA"),
        KeyError(),
        UnreachableError("a store"),
    ],
)
def test_is_transient__anything_else_may_be(error: Exception) -> None:
    assert is_transient(cached, RUN, Failed(data=error)) is True


def test_cached_stage__is_cached_by_its_content() -> None:
    assert cached.cache_key_fn is content_key
    assert cached.persist_result is True
    assert cached.result_serializer == "json"
    assert (cached.name, cached.task_run_name) == ("ingest", "ingest {name}")


def test_stage__is_never_cached() -> None:
    assert each_time.cache_policy == NO_CACHE
    assert each_time.cache_key_fn is None
    assert not each_time.persist_result


@pytest.mark.parametrize(("made", "first"), [(cached, 3), (each_time, 2)])
def test_stage__is_tried_again_only_where_that_can_help(made: object, first: int) -> None:
    assert made.retries == RETRIES == 2
    assert made.retry_condition_fn is is_transient
    delays = made.retry_delay_seconds
    assert (delays(RETRIES) if callable(delays) else delays) == [first, 2 * first]


def test_stage__is_the_function_that_it_was() -> None:
    assert (cached.fn("a"), each_time.fn("b")) == ("A", "B")
    assert cached.__doc__ == "What a stage does."
