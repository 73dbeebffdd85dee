"""The result of validation: one count per rule and column, and its table."""

import datetime as dt
from typing import Literal

from pydantic import BaseModel


class RuleCount(BaseModel):
    """How many rows of a table break a rule, and the action taken. With a column, `rows` counts its values."""

    rule: str
    column: str | None
    rows: int
    share: float
    tolerance: float
    action: Literal["quarantined", "masked", "counted"]
    first_utc: dt.datetime | None


def quality_rows(rules: list[RuleCount]) -> list[dict[str, object]]:
    """The counts as a table to read: one row per rule and column."""
    return [
        {
            "rule": rule.rule,
            "column": rule.column or "all",
            "rows": rule.rows,
            "share": f"{rule.share:.3%}",
            "tolerated": f"{rule.tolerance:.3%}",
            "action": rule.action if rule.rows else "none",
            "first (UTC)": f"{rule.first_utc:%Y-%m-%d %H:%M}" if rule.first_utc else "",
        }
        for rule in rules
    ]
