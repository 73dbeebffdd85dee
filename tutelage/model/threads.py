"""One thread on a CPU, whatever the machine: a training's bits must not depend on how busy its cores are.

With several threads torch and its BLAS split long sums by the number of threads, so that the same training gives other
last digits with another number. Networks as small as these gain little from a second thread, and lose much where it
shares a core (docs/log.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one CPU thread; at the end there are as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
