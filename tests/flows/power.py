"""A power cut in the middle of a flow."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest


class PowerCut(BaseException):
    """What ends the flow, and nothing in it catches."""


@contextmanager
def cut_at(module: ModuleType, stage: str, *, call: int) -> Iterator[None]:
    """Within the block the module's stage works until it is called for the `call`-th time; the block must end there."""
    real, calls = getattr(module, stage), 0

    def until_then(*given: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise PowerCut
        return real(*given, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(module, stage, until_then)
        yield
