"""When a challenger replaces the champion: an error rate that a calendar year shares out.

Retrains compare again and again, on windows that overlap: with a fixed level, equal networks replace each other several
times a year. So each comparison may err only as often as the time since the one before it is of a year: the sum over a
year of comparisons, however many, is at most MISTAKES_A_YEAR (the union bound; a linear spending function, Lan and
DeMets 1983). The test itself is that of `tutelage.judge.comparison`.
"""

import datetime as dt

MISTAKES_A_YEAR = 0.025
"""How often a year a champion may be replaced by an equal one."""
LEAST_WEEKS = 8
"""Fewer weeks of issue times decide nothing: a month that favours one network would be half of them."""
YEAR = dt.timedelta(days=365)


def allowed_p(since: dt.timedelta) -> float:
    """The greatest p with which a challenger replaces the champion, by the time since the comparison before."""
    return MISTAKES_A_YEAR * min(max(since / YEAR, 0.0), 1.0)
