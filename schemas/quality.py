"""What validation found: one count a rule and column, and the table that a person reads."""

import datetime as dt
from typing import Literal

from pydantic import BaseModel


class RuleCount(BaseModel):
    """How much of a table breaks one rule, and what was done about it. `rows` counts values where a column is named."""

    rule: str
    column: str | None
    rows: int
    share: float
    tolerance: float
    action: Literal["quarantined", "masked", "counted"]
    first_utc: dt.datetime | None


def quality_rows(rules: list[RuleCount]) -> list[dict[str, object]]:
    """The table that a person reads: one row a rule and column."""
    return [
        {
            "rule": rule.rule,
            "column": rule.column or "all",
            "rows": rule.rows,
            "share": f"{rule.share:.3%}",
            "tolerated": f"{rule.tolerance:.3%}",
            "what was done": rule.action if rule.rows else "nothing to do",
            "first (UTC)": f"{rule.first_utc:%Y-%m-%d %H:%M}" if rule.first_utc else "",
        }
        for rule in rules
    ]
