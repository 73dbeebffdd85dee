import sys

import pytest

from runtime.engine import LOCAL, each_of
from schemas.backtest import BacktestParameters
from tutelage.errors import SpecError


def test_each_of__here_begins_a_piece_when_it_is_asked_for() -> None:
    begun = []
    results = each_of(lambda piece: begun.append(piece) or piece, [1, 2], LOCAL, name="piece", device="cpu")
    assert (next(results), begun) == (1, [1])
    assert (list(results), begun) == ([2], [1, 2])


def test_each_of__without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(SpecError, match=r"^engine ray needs more packages: pip install 'tutelage\[ray\]'$"):
        next(each_of(str, [1], "ray", name="piece", device="cpu"))


@pytest.mark.parametrize("engine", ["", "dask", "ray:", "ray://", "ray://head 10001"])
def test_engine__must_be_known(engine: str) -> None:
    with pytest.raises(ValueError, match="engine"):
        BacktestParameters(engine=engine)
