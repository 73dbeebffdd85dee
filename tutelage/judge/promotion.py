"""When a challenger replaces the champion: a test over weeks, with an error rate that a calendar year shares out.

Retrains compare again and again, on windows that overlap: with a fixed level, equal networks replace each other several
times a year. So each comparison may err only as often as the time since the one before it is of a year: the sum over a
year of comparisons, however many, is at most MISTAKES_A_YEAR (the union bound; a linear spending function, Lan and
DeMets 1983). At such levels a bootstrap of seventeen weeks claims too easily, so the test is a t-test on weekly means
whose variance comes from their slow movements: it holds where errors last for days and months favour one network.
"""

import datetime as dt
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t

MISTAKES_A_YEAR = 0.025
"""How often a year a champion may be replaced by an equal one."""
LEAST_WEEKS = 8
COSINES = 3
WEEK_HOURS = 168
YEAR = dt.timedelta(days=365)


@dataclass(frozen=True)
class WeeklyTest:
    """The test of whether a candidate's loss is lower than a reference's, over weeks of issue times.

    p: one-sided; 1 where there are fewer than LEAST_WEEKS
    """

    weeks: int
    p: float


def weekly_test(
    candidate: Float[np.ndarray, " windows"],
    reference: Float[np.ndarray, " windows"],
    issue_hour: Int[np.ndarray, " windows"],
) -> WeeklyTest:
    """Test on the means by week; a week with windows at less than half of its hours is left out.

    Source: the equal-weighted cosine test with fixed-smoothing critical values (Müller 2004; Lazarus, Lewis, Stock and
    Watson 2018), with COSINES terms: a t distribution with as many degrees of freedom.
    """
    week, place = np.divmod(issue_hour - issue_hour.min(), WEEK_HOURS)
    advantage = reference - candidate
    means = [
        advantage[week == number].mean()
        for number in np.unique(week)
        if len(np.unique(place[week == number])) >= WEEK_HOURS / 2
    ]
    weeks = len(means)
    if weeks < LEAST_WEEKS:
        return WeeklyTest(weeks, 1.0)
    return WeeklyTest(weeks, cosine_p(np.array(means)))


def cosine_p(advantage: Float[np.ndarray, " weeks"]) -> float:
    """The one-sided p of a mean above 0, of values in order of time that may depend on each other."""
    weeks = len(advantage)
    place = (np.arange(weeks) + 0.5) / weeks
    cosines = np.sqrt(2 / weeks) * np.cos(np.pi * np.arange(1, COSINES + 1)[:, None] * place)
    variance = float(np.square(cosines @ advantage).mean())
    if variance == 0:
        return 0.0 if advantage.mean() > 0 else 1.0
    return float(t.sf(np.sqrt(weeks) * advantage.mean() / np.sqrt(variance), COSINES))


def allowed_p(since: dt.timedelta) -> float:
    """The greatest p with which a challenger replaces the champion, by the time since the comparison before."""
    return MISTAKES_A_YEAR * min(max(since / YEAR, 0.0), 1.0)
