"""As many threads as cores are free: two threads that share one core train many times slower than one.

The number of threads changes no bit of a training on a CPU (tests/tutelage/model/test_threads.py holds it), so it may
change from epoch to epoch.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

FIRST_SECONDS = 0.05
"""How long the machine is watched before the first epoch."""
RECENT_SECONDS = 5.0
"""How old a reading may be for another training to begin with it instead."""


@dataclass(frozen=True)
class CpuTime:
    """Seconds since some start: on the clock, and of all cores together that others and this process have used."""

    wall: float
    others: float


def read_cpu_time() -> CpuTime:
    """The present readings."""
    times, process = psutil.cpu_times(), psutil.Process().cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # `guest` is part of `user` already.
    busy = sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return CpuTime(time.monotonic(), busy - process.user - process.system)


def free_cores(before: CpuTime, after: CpuTime, cores: int) -> int:
    """Cores that others left free between two readings, rounded; at least one."""
    seconds = after.wall - before.wall
    busy = (after.others - before.others) / seconds if seconds > 0 else 0.0
    return max(1, min(cores, round(cores - busy)))


@dataclass
class _Watch:
    """The last reading, and the threads that it left free."""

    reading: CpuTime
    threads: int

    def adapt(self, limit: int) -> None:
        """Set the threads to the cores that have been free since the last reading, where it is old enough."""
        after = read_cpu_time()
        if after.wall - self.reading.wall >= FIRST_SECONDS:  # the readings have a hundredth of a second
            self.threads = free_cores(self.reading, after, limit)
            self.reading = after
        torch.set_num_threads(self.threads)


_watches: dict[int, _Watch] = {}
"""By the limit: a training that soon follows another one begins with its readings."""


def _begin(limit: int) -> _Watch:
    watch = _watches.get(limit)
    if watch is None or time.monotonic() - watch.reading.wall > RECENT_SECONDS:
        watch = _watches[limit] = _Watch(read_cpu_time(), limit)
        time.sleep(FIRST_SECONDS)
    return watch


@contextmanager
def adaptive_threads() -> Iterator[Callable[[], None]]:
    """Yield a function that sets torch's threads to the free cores; at the end they are what they were.

    It never sets more threads than there were at the start: OMP_NUM_THREADS and torch.set_num_threads keep their say.
    """
    limit = torch.get_num_threads()
    if limit == 1:
        yield lambda: None
        return
    watch = _begin(limit)
    try:
        yield lambda: watch.adapt(limit)
    finally:
        torch.set_num_threads(limit)
