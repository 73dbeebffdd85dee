import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import efficacy
from benchmarks.common import STUDENTS, Cell, cells_table
from benchmarks.efficacy import RESULTS, _on_common_hours, history_saved, summarise
from benchmarks.household_cells import every_cell, origins_of
from tests.benchmarks.test_common import losses_of
from tutelage.files import read_json
from tutelage.forecasts import Contender


def crps_of(**by_days: tuple[float, float]) -> dict[int, dict[Contender, float]]:
    """d100=(twin, student) → what history_saved takes."""
    return {
        int(days[1:]): {Contender.TWIN: twin, Contender.STUDENT: student} for days, (twin, student) in by_days.items()
    }


def test_history_saved__is_read_from_a_line_in_log_days() -> None:
    half_way = crps_of(d100=(0.40, 0.35), d400=(0.30, 0.29))
    assert history_saved(half_way, 100) == pytest.approx(2.0)  # √(100 · 400) = 200 days
    later = crps_of(d100=(0.40, 0.31), d200=(0.38, 0.37), d400=(0.30, 0.29))
    assert history_saved(later, 100) == pytest.approx(math.exp(7 / 8 * math.log(2)) * 2)


def test_history_saved__of_a_student_that_is_no_better_nothing() -> None:
    assert history_saved(crps_of(d100=(0.40, 0.41), d400=(0.30, 0.29)), 100) == 1.0


def test_history_saved__is_unknown_where_no_twin_reaches_the_student() -> None:
    assert history_saved(crps_of(d100=(0.40, 0.25), d400=(0.30, 0.29)), 100) is None
    assert history_saved(crps_of(d400=(0.30, 0.29)), 100) is None


def test_on_common_hours__leaves_out_what_one_history_lacks() -> None:
    def piece(hours: list[int], loss: float) -> dict[str, np.ndarray]:
        return {"hour": np.array(hours), **{name: loss + np.array(hours, dtype=float) for name in STUDENTS}}

    means = _on_common_hours({100: [piece([1, 2], 0.0), piece([5], 0.0)], 200: [piece([2, 3, 5], 1.0)]})
    assert means[100][Contender.TWIN] == pytest.approx((2 + 5) / 2)
    assert means[200][Contender.STUDENT] == pytest.approx((3 + 6) / 2)


def test_summarise__of_what_is_not_measured_anew_the_earlier_figures_stay() -> None:
    short = {Cell(1, 50, 0): losses_of(0.9), Cell(1, 50, 1): losses_of(0.9, 1000)}
    wanted = [*short, Cell(1, None, 0)]
    earlier = summarise(short, wanted, days_of_all=1000)
    assert earlier["summary"]["mean_gain_short"] == pytest.approx(0.1)
    assert earlier["summary"]["history_saved"] == {}  # not all histories were measured
    anew = {Cell(1, None, 0): losses_of(1.2) | {"commit": np.array("a1")}, Cell(1, 50, 0): losses_of(0.5)}
    later = summarise(anew, wanted, days_of_all=1000, earlier=earlier)
    assert {name: cell["commit"] for name, cell in later["cells"].items()} == {"1h-50d": "unknown", "1h-all": "a1"}
    assert later["summary"]["gain_by_history"]["all"]["commit"] == "a1"
    gains = {name: cell["gain"]["student"]["estimate"] for name, cell in later["cells"].items()}
    assert gains == pytest.approx({"1h-50d": 0.1, "1h-all": -0.2})
    by_history = later["summary"]["gain_by_history"]
    assert {name: row["mean"] for name, row in by_history.items()} == pytest.approx({"50": 0.1, "all": -0.2})
    assert later["summary"]["mean_gain_short"] == pytest.approx(0.1)
    assert later["summary"]["cells_behind_floor"] == []
    assert later["summary"]["worse_cells"] == ["1h-all"]


def test_results__can_be_shown() -> None:
    cells = read_json(RESULTS)["cells"]
    assert len(cells_table(cells).splitlines()) == 1 + len(cells)


def test_write__has_the_parts_and_counts_their_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficacy, "can_be_measured", lambda cell: cell != Cell(1, 50, 3))
    committed = read_json(RESULTS)
    figures = summarise({}, [], days_of_all=1, earlier=committed)
    summary = efficacy._write(figures, tmp_path / "efficacy.json")
    written = read_json(tmp_path / "efficacy.json")
    assert written["summary"] == summary == committed["summary"]
    parts = ("cells", "homes", "teachers", "ett")
    assert {name: written[name] for name in parts} == {name: committed[name] for name in parts}
    assert written["settings"]["left_out"] == ["1h-50d-3"]
    assert summary["cells"] == len(written["cells"]) + len(written["ett"]["cells"]) + len(written["ett"]["protocol"])


def test_every_cell__short_histories_have_more_origins() -> None:
    assert [origins_of(days) for days in (50, 100, 200, None)] == [6, 6, 3, 3]
    assert len(every_cell()) == 2 * (6 + 6 + 3 + 3 + 3)
