"""The keys of a spec's rules for quality, serving and monitoring; `tutelage.data.quality` says what each rule does."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field

from tutelage.contract import Contract

Share = Annotated[float, Field(ge=0, le=1)]


class Issued(Contract):
    """Forecasts that come with the time of their issue: which column it is, and when they can be had."""

    column: str = Field(description="the column of the issue time, in the format and the zone of the times")
    available_after: dt.timedelta = Field(
        dt.timedelta(0), ge=dt.timedelta(0), description="from its issue until a forecast can be had"
    )
    step: Annotated[dt.timedelta, Field(gt=dt.timedelta(0))] | None = Field(
        None, description="from one of its times to the next; empty: raw_step"
    )


class Tolerance(Contract):
    """The share of rows that may break a rule before the flow stops."""

    tolerance: Share


class Duplicate(Tolerance):
    """Rows with the series and the time of another row; one of them stays."""

    keep: Literal["first", "last"] = "first"


class Repeated(Tolerance):
    """Rows that repeat those `after` earlier, in a run of `at_least`: gaps that a logger filled without a mark.

    Like `Frozen`, by the observed columns alone: what a student sees must not depend on what production lacks.
    """

    after: dt.timedelta
    at_least: dt.timedelta = dt.timedelta(0)


class Frozen(Tolerance):
    """Runs of at least `at_least` in which each row equals its predecessor in every observed column."""

    at_least: dt.timedelta


class Flat(Tolerance):
    """Runs of at least `at_least` in which the target stays within `within`, in its unit: a meter that is stuck."""

    at_least: dt.timedelta
    within: Annotated[float, Field(ge=0)] = 0.0


class QualityRules(Contract):
    """The quality rules, and the tolerated share of rows that break each."""

    unreadable_time: Tolerance = Tolerance(tolerance=0)
    off_grid_time: Tolerance = Tolerance(tolerance=0)
    duplicate_time: Duplicate = Duplicate(tolerance=0)
    missing_row: Tolerance = Tolerance(tolerance=0.05)
    missing_value: Tolerance = Tolerance(tolerance=0.05)
    out_of_range: Tolerance = Tolerance(tolerance=0)
    repeated: Repeated | None = None
    frozen: Frozen | None = None
    flat: Flat | None = None
    complete_share: Share = Field(0.9, description="least share of an hour's readings; with fewer the hour is null")


class Serving(Contract):
    """How a forecast handles late or missing hours of its lookback."""

    missing_hours: Literal["season", "last", "refuse"] = Field(
        "season",
        description="season: use the same hour of a previous day, up to a week back; last: the hour before",
    )
    at_most_hours: Annotated[int, Field(ge=0)] = Field(
        6, description="maximum number of hours to fill; beyond it: no forecast"
    )


class Monitoring(Contract):
    """When stored forecasts count as degraded, verified against the actual values of the last `window_days`."""

    window_days: Annotated[int, Field(ge=1)] = 7
    least_hours: Annotated[int, Field(ge=1)] = Field(48, description="fewest verified hours to raise an alert on")
    least_skill: float = Field(0.0, lt=1, description="least CRPS skill over seasonal naive")
    coverage_80: tuple[Share, Share] = Field((0.6, 0.95), description="allowed coverage of the 80 % interval")
    reference_days: Annotated[int, Field(ge=7)] = Field(
        60, description="last days of training that inputs are compared with"
    )
    most_drift: Share = Field(0.5, description="largest Kolmogorov-Smirnov distance of an input")
    cooldown_days: Annotated[int, Field(ge=0)] = Field(
        7, description="after a retrain was asked for, none is for the same version for this long"
    )
