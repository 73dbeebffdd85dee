"""Stored forecasts against what then happened: skill over seasonal naive, coverage, and drift of the inputs."""

import datetime as dt

import numpy as np
import polars as pl
from scipy.stats import ks_2samp

from tutelage.dataset import DatasetSpec, Monitoring, Role
from tutelage.metrics import LEVELS, Forecasts, crps
from tutelage.readings import KEY

DAY_HOURS = 24
SPREAD_DAYS = 28


def judged_hours(
    forecasts: pl.DataFrame, hours: pl.DataFrame, spec: DatasetSpec, *, horizon_hours: int
) -> pl.DataFrame:
    """One row a forecast hour that came true: series_id, issue_time_utc, time_utc, crps, naive_crps, inside_80.

    Seasonal naive repeats the value of the last whole days that are known at issue time, with the quantiles of its
    misses over the four weeks before the first judged hour. Hours whose value, or whose season's, is null are left out.
    `hours` must hold every hour of each series. Figures are in the target's unit.
    """
    season = DAY_HOURS * -(-horizon_hours // DAY_HOURS)
    value = hours.select(*KEY, actual=spec.target).with_columns(
        season=pl.col("actual").shift(season).over("series_id", order_by="time_utc")
    )
    joined = forecasts.join(value.drop_nulls(), on=KEY, how="inner", maintain_order="left")
    if joined.is_empty():
        return joined.select(*KEY, "issue_time_utc", crps=0.0, naive_crps=0.0, inside_80=False)
    first = joined["time_utc"].min()
    assert isinstance(first, dt.datetime)
    before = pl.col("time_utc").is_between(first - dt.timedelta(days=SPREAD_DAYS), first, closed="left")
    misses = value.filter(before).select(pl.col("actual") - pl.col("season")).drop_nulls().to_series().to_numpy()
    spread = np.quantile(misses, LEVELS) if len(misses) else np.zeros(len(LEVELS))
    actual, naive = joined["actual"].to_numpy(), joined["season"].to_numpy()
    quantiles = joined.select(f"q{round(level * 100):02d}" for level in LEVELS).to_numpy()
    return joined.select(
        *KEY,
        "issue_time_utc",
        crps=pl.Series(_crps(joined["mean"].to_numpy(), quantiles, actual)),
        naive_crps=pl.Series(_crps(naive, naive[:, None] + spread, actual)),
        inside_80=pl.col("actual").is_between("q10", "q90"),
    )


def _crps(mean: np.ndarray, quantiles: np.ndarray, actual: np.ndarray) -> np.ndarray:
    forecasts = Forecasts(mean[:, None].astype(np.float64), quantiles[:, None].astype(np.float64))
    return crps(forecasts, actual[:, None].astype(np.float64))[:, 0]


def rolling_health(judged: pl.DataFrame, window_days: int) -> pl.DataFrame:
    """One row a day (UTC) with judged hours, over the `window_days` up to its end.

    Columns: day, hours, crps, naive_crps, coverage_80, skill.
    """
    return (
        judged.with_columns(day=pl.col("time_utc").dt.date())
        .sort("day")
        .rolling("day", period=f"{window_days}d")
        .agg(
            hours=pl.len(),
            crps=pl.col("crps").mean(),
            naive_crps=pl.col("naive_crps").mean(),
            coverage_80=pl.col("inside_80").mean(),
        )
        .unique("day", keep="last")
        .sort("day")
        .with_columns(skill=1 - pl.col("crps") / pl.col("naive_crps"))
    )


def input_drift(
    hours: pl.DataFrame, spec: DatasetSpec, *, now: dt.datetime, trained_until: dt.datetime
) -> dict[str, float]:
    """The Kolmogorov-Smirnov distance (scipy) of each observed column's last days to the last days of training.

    Its p-value is left out: neighbouring hours depend on each other, so it would call every difference certain.
    A column without values on either side has no distance.
    """
    rule = spec.monitoring
    recent = hours.filter(pl.col("time_utc").is_between(now - dt.timedelta(days=rule.window_days), now, closed="left"))
    start = trained_until - dt.timedelta(days=rule.reference_days)
    reference = hours.filter(pl.col("time_utc").is_between(start, trained_until, closed="left"))
    found = {}
    for name in spec.names(Role.OBSERVED):
        new, old = recent[name].drop_nulls().to_numpy(), reference[name].drop_nulls().to_numpy()
        if len(new) and len(old):
            found[name] = float(ks_2samp(new, old).statistic)
    return found


def broken_limits(rule: Monitoring, *, hours: int, skill: float, coverage: float, drift: dict[str, float]) -> list[str]:
    """What of the spec's limits the figures break, a sentence each; none with too few hours to judge by."""
    if hours < rule.least_hours:
        return []
    low, high = rule.coverage_80
    found = []
    if skill < rule.least_skill:
        found.append(f"CRPS skill over seasonal naive is {skill:+.1%}, below {rule.least_skill:+.1%}")
    if not low <= coverage <= high:
        found.append(f"the 80 % interval covers {coverage:.1%}, outside {low:.0%} to {high:.0%}")
    return found + [
        f"input {name} has drifted by {distance:.2f}, above {rule.most_drift:.2f}"
        for name, distance in drift.items()
        if distance > rule.most_drift
    ]
