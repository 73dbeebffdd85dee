"""Verification of stored forecasts: skill over seasonal naive, coverage, and drift of the inputs."""

import datetime as dt

import numpy as np
import polars as pl
from scipy.stats import ks_2samp

from tutelage.data.dataset import KEY, DatasetSpec, Role
from tutelage.data.rules import Monitoring
from tutelage.forecasts import QUANTILE_NAMES, Forecasts, crps
from tutelage.judge.metrics import LEVELS

SPREAD_DAYS = 28


def verified_hours(
    forecasts: pl.DataFrame, hours: pl.DataFrame, spec: DatasetSpec, *, horizon_hours: int
) -> pl.DataFrame:
    """One row per verified forecast step: the key, issue_time_utc, model_version, crps, naive_crps, inside_80.

    Seasonal naive repeats the value of the last whole days that are known at issue time, with the quantiles of its
    errors over the four weeks before the first verified step. Steps without an actual value, or without one a season
    before, are left out. `hours` must contain every step of each series. CRPS is in the target's unit.
    """
    season = spec.grid.of_day * -(-horizon_hours // 24)
    value = hours.select(*KEY, actual=spec.target).with_columns(
        season=pl.col("actual").shift(season).over("series_id", order_by="time_utc")
    )
    joined = forecasts.join(value.drop_nulls(), on=KEY, how="inner", maintain_order="left")
    if joined.is_empty():
        return joined.select(*KEY, "issue_time_utc", "model_version", crps=0.0, naive_crps=0.0, inside_80=False)
    first = joined["time_utc"].min()
    assert isinstance(first, dt.datetime)
    before = pl.col("time_utc").is_between(first - dt.timedelta(days=SPREAD_DAYS), first, closed="left")
    errors = value.filter(before).select("series_id", error=pl.col("actual") - pl.col("season")).drop_nulls()
    spread_of = {
        name: np.quantile(of_series["error"].to_numpy(), LEVELS) for (name,), of_series in errors.group_by("series_id")
    }
    spread = np.stack([spread_of.get(name, np.zeros(len(LEVELS))) for name in joined["series_id"]])
    actual, naive = joined["actual"].to_numpy(), joined["season"].to_numpy()
    # In the graph's precision: a value that many targets have may be one of its quantiles.
    true, low, high = (pl.col(name).cast(pl.Float32) for name in ("actual", "q10", "q90"))
    quantiles = joined.select(QUANTILE_NAMES).to_numpy()
    return joined.select(
        *KEY,
        "issue_time_utc",
        "model_version",
        crps=pl.Series(_crps(joined["mean"].to_numpy(), quantiles, actual)),
        naive_crps=pl.Series(_crps(naive, naive[:, None] + spread, actual)),
        inside_80=true.is_between(low, high),
    )


def _crps(mean: np.ndarray, quantiles: np.ndarray, actual: np.ndarray) -> np.ndarray:
    forecasts = Forecasts(mean[:, None].astype(np.float64), quantiles[:, None].astype(np.float64))
    return crps(forecasts, actual[:, None].astype(np.float64))[:, 0]


def rolling_health(verified: pl.DataFrame, window_days: int, *, step_hours: float = 1) -> pl.DataFrame:
    """One row per day (UTC) with verified steps, over the `window_days` up to the end of the day.

    Columns: day, hours, crps, naive_crps, coverage_80, skill. An hour counts once, whatever series and forecasts it is
    verified of. CRPS is in units of the seasonal naive one's mean of each series, so that the largest meter does not
    decide, or in the target's unit where that is 0; skill is null where it is 0 of all.
    """
    unit = pl.col("naive_crps").mean().over("series_id")
    several = verified["series_id"].n_unique() > 1
    unit = pl.when(unit > 0).then(unit).otherwise(1.0) if several else pl.lit(1.0)
    return (
        verified.with_columns(
            day=pl.col("time_utc").dt.date(), crps=pl.col("crps") / unit, naive_crps=pl.col("naive_crps") / unit
        )
        .sort("day")
        .rolling("day", period=f"{window_days}d")
        .agg(
            hours=(pl.col("time_utc").n_unique() * step_hours).round().cast(pl.Int64),
            crps=pl.col("crps").mean(),
            naive_crps=pl.col("naive_crps").mean(),
            coverage_80=pl.col("inside_80").mean(),
        )
        .unique("day", keep="last")
        .sort("day")
        .with_columns(skill=pl.when(pl.col("naive_crps") > 0).then(1 - pl.col("crps") / pl.col("naive_crps")))
    )


def input_drift(
    hours: pl.DataFrame, spec: DatasetSpec, *, as_of: dt.datetime, trained_until: dt.datetime
) -> dict[str, float]:
    """The Kolmogorov-Smirnov distance (scipy) between each observed column's last days and the last days of training.

    The p-value is not used: neighbouring values depend on each other, so it would make any difference significant. A
    column without values in one of the two periods has no distance.
    """
    rule = spec.monitoring
    recent = hours.filter(
        pl.col("time_utc").is_between(as_of - dt.timedelta(days=rule.window_days), as_of, closed="left")
    )
    start = trained_until - dt.timedelta(days=rule.reference_days)
    reference = hours.filter(pl.col("time_utc").is_between(start, trained_until, closed="left"))
    distances = {}
    for name in spec.names(Role.OBSERVED):
        new, old = recent[name].drop_nulls().to_numpy(), reference[name].drop_nulls().to_numpy()
        if len(new) and len(old):
            distances[name] = float(ks_2samp(new, old).statistic)
    return distances


def broken_limits(
    rule: Monitoring, *, hours: int, skill: float | None, coverage: float | None, drift: dict[str, float]
) -> list[str]:
    """The spec's limits that the figures break, one sentence each; none with fewer than `least_hours` hours.

    skill: None where seasonal naive misses nothing, as of a meter that stands still
    """
    if hours < rule.least_hours or coverage is None:
        return []
    low, high = rule.coverage_80
    broken = []
    if skill is not None and skill < rule.least_skill:
        broken.append(f"CRPS skill over seasonal naive is {skill:+.1%}, below {rule.least_skill:+.1%}")
    if not low <= coverage <= high:
        broken.append(f"the 80 % interval covers {coverage:.1%}, outside {low:.0%} to {high:.0%}")
    return broken + [
        f"input {name} has drifted by {distance:.2f}, above {rule.most_drift:.2f}"
        for name, distance in drift.items()
        if distance > rule.most_drift
    ]
