"""Where pieces of work run that need nothing of each other: one by one here, or side by side on a Ray cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from prefect import task
from prefect.client.orchestration import get_client

from tutelage.errors import SpecError, UnreachableError

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"
PASSED_ON = ("TUTELAGE_HOME", "TUTELAGE_DATASETS", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS")
"""What workers must know of this process, unless it is an address with a password: a cluster shows it on its page."""


def each_of(work: Callable[[T], R], pieces: Sequence[T], engine: str, *, name: str, device: str) -> Iterator[R]:
    """work(piece) of each piece, in their order.

    On a cluster each is a task run, of this name, of the present flow run. One whose worker is lost begins anew on
    another; one that fails ends the others.

    work: of a module that workers can import, called with one argument, its piece
    engine: local; ray: the cluster of RAY_ADDRESS, else one of this machine's cores; ray://…: the cluster there

    Raises SpecError where the packages of a cluster are not installed, UnreachableError where it does not answer.
    """
    if engine == LOCAL:
        yield from map(work, pieces)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from prefect_ray import RayTaskRunner
        from prefect_ray.context import remote_options
    except ImportError:
        raise SpecError(f"engine {engine} needs more packages: pip install 'tutelage[ray]'") from None
    address = None if engine == "ray" else engine
    of_this_process = {
        variable: os.environ[variable] for variable in PASSED_ON if "@" not in os.environ.get(variable, "@")
    }
    with get_client(sync_client=True) as prefect:
        of_this_process["PREFECT_API_URL"] = str(prefect.api_url)
    settings: dict[str, Any] = {"runtime_env": {"env_vars": of_this_process}, "log_to_driver": False}
    if address is None and "RAY_ADDRESS" not in os.environ:
        settings["include_dashboard"] = False
    with ExitStack() as stack:
        try:
            runner = stack.enter_context(RayTaskRunner(address=address, init_kwargs=settings))
        except ConnectionError as error:
            raise UnreachableError(f"engine {engine}: no Ray cluster answers; {error}") from error
        # Ray hides a machine's GPUs from whoever doesn't ask for one.
        on_gpu = device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        with remote_options(num_gpus=1 if on_gpu else 0):
            as_task = task(name=name)(work)
            futures = [runner.submit(as_task, {"piece": piece}) for piece in pieces]
        for future in futures:
            yield future.result()
