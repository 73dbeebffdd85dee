import datetime as dt

import pytest

from tutelage.judge.promotion import MISTAKES_A_YEAR, allowed_p

DAY = dt.timedelta(days=1)


def test_allowed_p__of_comparisons_sums_to_no_more_than_a_year_may_have() -> None:
    for days in (1, 7, 30, 91, 365):
        assert allowed_p(days * DAY) * 365 / days == pytest.approx(MISTAKES_A_YEAR)
    assert allowed_p(1000 * DAY) == MISTAKES_A_YEAR
    assert allowed_p(0 * DAY) == allowed_p(-5 * DAY) == 0
