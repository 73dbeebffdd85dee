"""Rolling origin: retrained at several times of the past, a forecaster is judged on the stretch after each."""

import datetime as dt
from collections.abc import Mapping, Sequence

import polars as pl

RIVALS = ("twin", "no_privilege")
"""Whom a student is held against; the students of teachers without privilege are there where there is a control."""


def stretch_ends(end: dt.datetime, *, origins: int, stretch_days: int) -> list[dt.datetime]:
    """The ends of the stretches, oldest first, the last at `end`; each begins, at its origin, where the last one ends.

    They don't overlap, so no hour is judged twice.
    """
    return [end - dt.timedelta(days=stretch_days * back) for back in reversed(range(origins))]


def backtest_table(figures: Mapping[dt.datetime, Mapping[str, float]], *, stretch_days: int) -> pl.DataFrame:
    """One row a stretch: origin_utc, end_utc, the CRPS of each forecast, and the student's gain over each rival.

    figures: the end of a stretch → metrics by name, `student.crps`, `gain_vs_twin.low`, …
    A forecast that isn't there at every origin is left out: its mean would be over other hours.
    """
    common = set.intersection(*(set(values) for values in figures.values()))
    scores = sorted(name for name in common if name.endswith(".crps") and not name.startswith("validation."))
    rows = [
        {
            "origin_utc": end - dt.timedelta(days=stretch_days),
            "end_utc": end,
            **{name.replace(".", "_"): values[name] for name in scores},
            **{
                f"gain_vs_{rival}_{name}": values[f"gain_vs_{rival}.{name}"]
                for rival in RIVALS
                if f"gain_vs_{rival}.estimate" in common
                for name in ("estimate", "low", "high")
            },
        }
        for end, values in sorted(figures.items())
    ]
    return pl.DataFrame(rows)


def overall_gain(table: pl.DataFrame, rival: str) -> float:
    """The student's gain in mean CRPS over all stretches, against one of the rivals."""
    student, other = (table[f"{name}_crps"].to_numpy().mean() for name in ("student", rival))
    return float(1 - student / other)


def rivals_of(table: pl.DataFrame) -> list[str]:
    """The rivals that a table has the student's gains over."""
    return [rival for rival in RIVALS if f"gain_vs_{rival}_estimate" in table.columns]


def forecasts_of(table: pl.DataFrame) -> Sequence[str]:
    """The forecasts that a table has the CRPS of."""
    return [name.removesuffix("_crps") for name in table.columns if name.endswith("_crps")]
