import numpy as np
import pytest

from benchmarks.common import Cell, Losses
from benchmarks.teachers import VARIANTS, every_piece, summarise, table, variants_of


def losses_of(first_step: int, shares: dict[str, float]) -> Losses:
    twin = np.random.default_rng(first_step).uniform(1, 2, 800)
    losses = {"hour": first_step + np.arange(800), "twin": twin}
    losses |= {name: share * twin for name, share in shares.items()}
    return losses | {f"share:{name}": np.array(0.25) for name in ("twin", *shares)} | {"commit": np.array("a1")}


def test_variants_of__an_hour_ahead_none_stands_in_the_relative_future() -> None:
    assert variants_of(24) == VARIANTS
    ahead = variants_of(1)
    assert set(ahead) == set(VARIANTS) - {"relative"}
    for horizon in (1, 24):
        for recipe in variants_of(horizon).values():
            recipe.require_horizon(horizon)
            # `override` does not validate.
            type(recipe).model_validate(recipe.model_dump())


def test_summarise__gains_over_the_twin_and_over_the_default() -> None:
    shares = {"default": 0.95, "simple": 0.9, "coupled": 1.05}
    done = {Cell(24, 100, 0): losses_of(0, shares), Cell(24, 100, 1): losses_of(2000, shares)}
    figures = summarise(done)
    assert set(figures["cells"]) == {"24h-100d"}
    cell = figures["cells"]["24h-100d"]
    assert (cell["pieces"], cell["commit"], set(cell["variants"])) == (2, "a1", set(shares))
    simple = cell["variants"]["simple"]
    assert simple["gain_over_twin"]["estimate"] == pytest.approx(0.1)
    assert simple["gain_over_default"]["estimate"] == pytest.approx(1 - 0.9 / 0.95)
    assert simple["gain_by_origin"] == pytest.approx([0.1, 0.1])
    assert simple["network_share"] == 0.25
    assert simple["p_holm"] < 0.01 < cell["variants"]["coupled"]["p_holm"]
    assert "simple" in table(figures)


def test_every_piece__both_horizons_at_six_origins() -> None:
    pieces = every_piece()
    assert len(set(pieces)) == len(pieces) == 12
    assert {(piece.horizon, piece.history) for piece in pieces} == {(1, 100), (24, 100)}
