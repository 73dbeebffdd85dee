"""The keys of a spec's quality rules; `tutelage.data.quality` says what each rule does."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field

from tutelage.contract import Contract

Share = Annotated[float, Field(ge=0, le=1)]


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
