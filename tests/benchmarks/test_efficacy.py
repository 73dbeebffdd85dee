import math

import numpy as np
import pytest

from benchmarks.efficacy import _on_common_hours, every_piece, history_saved, origins_of


def crps_of(**by_days: tuple[float, float]) -> dict[int, dict[str, float]]:
    """d100=(twin, student) → what history_saved takes."""
    return {int(days[1:]): {"twin": twin, "privileged": student} for days, (twin, student) in by_days.items()}


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
        kinds = ("twin", "privileged", "no_privilege", "placebo")
        return {"hour": np.array(hours), **{kind: loss + np.array(hours, dtype=float) for kind in kinds}}

    found = _on_common_hours({100: [piece([1, 2], 0.0), piece([5], 0.0)], 200: [piece([2, 3, 5], 1.0)]})
    assert found[100]["twin"] == pytest.approx((2 + 5) / 2)
    assert found[200]["privileged"] == pytest.approx((3 + 6) / 2)


def test_every_piece__short_histories_have_more_origins() -> None:
    assert [origins_of(days) for days in (50, 100, 200, None)] == [6, 6, 3, 3]
    assert len(every_piece()) == 2 * (6 + 6 + 3 + 3 + 3)
