"""Trainings side by side on the CPU's cores, each on one thread.

With several threads torch and its BLAS split long sums by the number of threads, so that the same training gives other
last digits with another number. On one thread it gives the same ones however busy the machine is. Networks as small as
these gain little from a second thread, and trainings that don't wait for each other nearly all of a second core
(docs/log.md).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from threading import Event
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


_given_up: ContextVar[Event | None] = ContextVar("given_up", default=None)


class GivenUpError(Exception):
    """Work that its caller no longer waits for."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one CPU thread; at the end there are as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> list[Result]:
    """The result of a piece of work for each item, as many at once as torch has threads, each on one thread.

    On a GPU, which is busy with one, they follow each other. The work must not use torch's global random state.

    Raises what the first of them to fail raises, or what ends the process; the others then end at their next
    `stop_if_given_up`, or don't begin.
    """
    workers = min(len(items), torch.get_num_threads()) if device.type == "cpu" else 1
    if workers < 2:
        return [work(item) for item in items]
    given_up = Event()

    def begin(item: Item) -> Result:
        _given_up.set(given_up)
        stop_if_given_up()
        return work(item)

    # Workers begin with as many threads as there are here: with one, which their own blocks put back. BLAS has one
    # limit for the whole process: set by a worker, it would end while others compute, or stay when all have ended.
    with one_thread(), threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        try:
            # A copy for each: a run's logger, for one, is in the context.
            begun = [pool.submit(copy_context().run, begin, item) for item in items]
            for done in wait(begun, return_when=FIRST_EXCEPTION).done:
                done.result()
            return [each.result() for each in begun]
        finally:
            given_up.set()


def stop_if_given_up() -> None:
    """Raise GivenUpError in work that `side_by_side` no longer waits for."""
    event = _given_up.get()
    if event is not None and event.is_set():
        raise GivenUpError
