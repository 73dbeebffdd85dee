"""Rolling-origin evaluation: a forecaster is retrained at several origins, and evaluated on the period after each."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES
from tutelage.judge.comparison import Gain

REFERENCES = (Contender.TWIN, Contender.UNPRIVILEGED)
"""The references of the students' gains; unprivileged students only where a retrain trains them."""


@dataclass(frozen=True)
class Period:
    """One evaluation period of a backtest, from its origin up to, not including, its end.

    crps: of each contender, in the target's unit; gains: of the students over each reference
    """

    origin_utc: dt.datetime
    end_utc: dt.datetime
    crps: Mapping[Contender, float]
    gains: Mapping[Contender, Gain]


def period_ends(end: dt.datetime, *, origins: int, period_days: int) -> list[dt.datetime]:
    """The ends of the periods, oldest first, the last at `end`. Each begins, at its origin, where the one before ends.

    Periods don't overlap, so no hour is evaluated twice.
    """
    return [end - dt.timedelta(days=period_days * back) for back in reversed(range(origins))]


def common_contenders(periods: list[Period]) -> list[Contender]:
    """Contenders with a CRPS in every period; means of others would cover different hours."""
    return [name for name in periods[0].crps if all(name in period.crps for period in periods)]


def common_references(periods: list[Period]) -> list[Contender]:
    """References with a gain in every period."""
    return [name for name in REFERENCES if all(name in period.gains for period in periods)]


@dataclass(frozen=True)
class Overall:
    """A comparison over all periods.

    gain: in mean CRPS over the reference, as a share; won: the number of periods with a lower CRPS than the reference's
    """

    reference: Contender
    gain: float
    won: int


def compare_overall(periods: list[Period], reference: Contender, candidate: Contender = Contender.STUDENT) -> Overall:
    """The students, or another contender, against a reference over all periods."""
    of_candidate, of_reference = ([period.crps[name] for period in periods] for name in (candidate, reference))
    won = sum(each < other for each, other in zip(of_candidate, of_reference, strict=True))
    return Overall(reference, 1 - fmean(of_candidate) / fmean(of_reference), won)


def overall_floor(periods: list[Period]) -> Overall:
    """What would have been registered, against the simple forecast with the lowest mean CRPS over all periods."""
    simple = [name for name in common_contenders(periods) if name in BASELINES]
    best = min(simple, key=lambda name: fmean(period.crps[name] for period in periods))
    return compare_overall(periods, best, Contender.CHOSEN)


def backtest_rows(periods: list[Period]) -> list[dict[str, dt.datetime | float]]:
    """The table of a backtest, one row per period: origin_utc, end_utc, CRPS by contender, gains with intervals."""
    contenders, references = common_contenders(periods), common_references(periods)
    return [
        {"origin_utc": period.origin_utc, "end_utc": period.end_utc}
        | {f"{name}_crps": period.crps[name] for name in contenders}
        | {
            f"gain_over_{name}_{part}": getattr(period.gains[name], part)
            for name in references
            for part in ("estimate", "low", "high")
        }
        for period in periods
    ]
