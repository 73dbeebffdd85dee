import math

import numpy as np
import pytest

from benchmarks.common import STUDENTS, Cell, Losses, cells_table, over_origins, summarise_cell, with_earlier
from benchmarks.efficacy import RESULTS, _on_common_hours, history_saved, summarise
from benchmarks.household_cells import every_cell, origins_of
from tutelage.files import read_json
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES


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


def test_over_origins__is_as_wide_as_so_few_of_them_differ() -> None:
    """Of three with standard deviation 1 the half width is 4.303 / √3."""
    interval = over_origins([0.0, 1.0, 2.0])
    assert interval == pytest.approx({"estimate": 1.0, "low": -1.484, "high": 3.484, "origins": 3}, abs=1e-3)
    assert over_origins([0.1]) is None


def losses_of(student: float, first_hour: int = 0) -> Losses:
    """Losses of a piece in which the student's are this share of its twin's, and ridge is the floor."""
    twin = np.random.default_rng(0).uniform(1, 2, 1000)
    shares = {"twin": 1.0, "student": student, "unprivileged": 0.95, "placebo": 1.1, "teacher": 0.5}
    losses = {name: share * twin for name, share in shares.items()}
    losses |= {f"{name}_by_seed": shares[name] * np.array([1.0, 2.0]) for name in STUDENTS}
    losses |= {name: (1.2 if name is Contender.RIDGE else 2) * twin for name in BASELINES}
    return losses | {"hour": first_hour + np.arange(1000), "n_train": np.array(9)}


def test_summarise_cell__gains_over_all_origins() -> None:
    losses = losses_of(0.9)
    row = summarise_cell([losses, losses_of(0.9, 1000)])
    assert (row["n_train_windows"], row["pieces"]) == ([9, 9], 2)
    assert row["crps"] == pytest.approx({name: losses[name].mean() for name in row["crps"]})
    assert {name: gain["estimate"] for name, gain in row["gain"].items()} == pytest.approx(
        {"student": 0.1, "unprivileged": 0.05, "placebo": -0.1}
    )
    assert (row["floor"]["name"], row["floor"]["estimate"]) == (Contender.RIDGE, pytest.approx(1 - 0.9 / 1.2))
    assert row["gain_of_privilege"]["estimate"] == pytest.approx(1 - 0.9 / 0.95)
    assert row["gain_by_origin"] == pytest.approx([0.1, 0.1])
    assert row["gain_over_origins"] == pytest.approx({"estimate": 0.1, "low": 0.1, "high": 0.1, "origins": 2})
    assert row["gain_by_seed"] == pytest.approx([0.1, 0.1])


def test_with_earlier__fewer_pieces_take_no_place() -> None:
    earlier = {"50": {"pieces": 2, "commit": "old"}, "100": {"pieces": 3, "commit": "old"}}
    rows = with_earlier({"50": {"pieces": 2}, "100": {"pieces": 2}, "200": {"pieces": 1}}, earlier)
    assert {name: (row["pieces"], row["commit"] == "old") for name, row in rows.items()} == {
        "50": (2, False),
        "100": (3, True),
        "200": (1, False),
    }


def test_summarise__of_what_is_not_measured_anew_the_earlier_figures_stay() -> None:
    short = {Cell(1, 50, 0): losses_of(0.9), Cell(1, 50, 1): losses_of(0.9, 1000)}
    earlier = summarise(short, days_of_all=1000)
    assert earlier["summary"]["mean_gain_short"] == pytest.approx(0.1)
    assert earlier["summary"]["history_saved"] == {}  # not all histories were measured
    later = summarise({Cell(1, None, 0): losses_of(1.2)} | {Cell(1, 50, 0): losses_of(0.5)}, 1000, earlier)
    gains = {name: cell["gain"]["student"]["estimate"] for name, cell in later["cells"].items()}
    assert gains == pytest.approx({"1h-50d": 0.1, "1h-all": -0.2})
    by_history = later["summary"]["gain_by_history"]
    assert {name: row["mean"] for name, row in by_history.items()} == pytest.approx(
        {"50": 0.1, "short": 0.1, "all": -0.2}
    )
    assert later["summary"]["mean_gain_short"] == pytest.approx(0.1)
    assert later["summary"]["cells_behind_floor"] == []
    assert later["summary"]["worse_cells"] == ["1h-all"]


def test_results__can_be_shown() -> None:
    cells = read_json(RESULTS)["cells"]
    assert len(cells_table(cells).splitlines()) == 1 + len(cells)


def test_every_cell__short_histories_have_more_origins() -> None:
    assert [origins_of(days) for days in (50, 100, 200, None)] == [6, 6, 3, 3]
    assert len(every_cell()) == 2 * (6 + 6 + 3 + 3 + 3)
