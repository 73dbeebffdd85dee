"""What a sketched file shows: its step and its clock, gaps and flat runs, profiles, how predictable it is."""

import datetime as dt
from typing import Literal

import numpy as np
import polars as pl

from tutelage.data.grid import DAY, HOUR
from tutelage.data.sketch import Sketch

JUMPING = ("Europe/Paris", "Europe/London", "America/New_York", "Australia/Sydney", "America/Santiago")
"""One zone of each rule by which clocks jump, and when on the day."""
PASSES: tuple[Literal["earliest", "latest"], ...] = ("earliest", "latest")
BARS = "▁▂▃▄▅▆▇█"
BEFORE = {"an hour before": HOUR, "a day before": DAY, "a week before": 7 * DAY}


def step_of(sketch: Sketch) -> dt.timedelta | None:
    """The most frequent step from reading to reading; None: neither an hour nor a day is a multiple of it."""
    ordered = sketch.table.select("series_id", "local").drop_nulls().sort("series_id", "local")
    steps = ordered.select(pl.col("local").diff().over("series_id")).to_series().drop_nulls()
    steps = steps.filter(steps > dt.timedelta(0))
    if steps.is_empty():
        return None
    step = steps.value_counts(sort=True)["local"][0]
    return step if isinstance(step, dt.timedelta) and (not HOUR % step or not DAY % step) else None


def clock_clue(sketch: Sketch) -> str:
    """What the file says about the clock that wrote it, as a sentence."""
    if sketch.time.format.endswith("%z") or sketch.table["local"].dtype == pl.Datetime("us", "UTC"):
        return "Its times have an offset, so they are read rightly whatever the zone is; days and hours need it."
    local = sketch.table["local"].drop_nulls()
    clues = []
    for zone in JUMPING:
        earliest, latest = (local.dt.replace_time_zone(zone, ambiguous=which, non_existent="null") for which in PASSES)
        doubled = local.filter((earliest != latest).fill_null(False))
        clues.append((earliest.null_count(), _most_often(doubled) >= 2 * sketch.table["series_id"].n_unique(), zone))
    jumps = [zone for skipped, has_both, zone in clues if has_both and not skipped]
    if jumps:
        return f"Its clock jumps in spring and autumn like that of {jumps[0]}: it is that zone, or one with its rule."
    if all(skipped for skipped, *_ in clues[:3]):
        return "It has rows in hours that clocks in Europe and America skip: UTC, or a fixed offset such as Etc/GMT-1."
    return "No change of the clock shows in its times."


def _most_often(times: pl.Series) -> int:
    return 0 if times.is_empty() else int(times.value_counts()["count"].max())  # type: ignore[arg-type]


def report_lines(sketch: Sketch, step: dt.timedelta | None) -> list[str]:
    """What there is, as lines of text: rows, times, gaps, flat runs, profiles, how well simple forecasts do."""
    table = sketch.table.select("series_id", "local", value=pl.col(sketch.target))
    timed = table.drop_nulls("local").sort("series_id", "local")
    names = table["series_id"].unique(maintain_order=True).to_list()
    first_time, last_time = timed.select(pl.col("local").min(), pl.col("local").max().alias("last")).row(0)
    lines = [f"{table.height} rows from {first_time} to {last_time}"]
    if sketch.series:
        lines[0] += f", {len(names)} series: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
    doubled = timed.height - timed.unique(["series_id", "local"]).height
    lines.append(
        f"{table['local'].null_count()} unreadable times, {doubled} rows with the time of another, "
        f"{timed['value'].null_count()} of {sketch.target} without a number"
    )
    if step is not None:
        lines += _gap_lines(timed, step)
    first = timed.filter(pl.col("series_id") == names[0])
    every = max(step or HOUR, HOUR)
    means = first.group_by_dynamic("local", every=every).agg(pl.col("value").mean()).drop_nulls()
    if means.height * every >= 2 * max(BEFORE.values()):
        lines += _profile_lines(means, sketch.target, every)
    if step is not None and step < HOUR:
        within = first.select((pl.col("value") - pl.col("value").mean().over(pl.col("local").dt.truncate("1h"))).var())
        share = (within.item() or 0.0) / (first["value"].var() or 1.0)  # type: ignore[operator]
        lines.append(f"{share:.0%} of its variance lies within hours: what a teacher of {step} readings has to itself")
    return lines


def _gap_lines(timed: pl.DataFrame, step: dt.timedelta) -> list[str]:
    """Missing steps, the longest gap, the longest run of one value."""
    gaps = timed.with_columns(step=pl.col("local").diff().over("series_id")).filter(pl.col("step") > step)
    missing = sum(int(gap / step) - 1 for gap in gaps["step"].to_list())
    lines = [f"{missing} steps of {step} are missing ({missing / max(timed.height + missing, 1):.2%})"]
    if gaps.height:
        longest = gaps.sort("step", descending=True).row(0, named=True)
        lines[0] += f"; the longest gap, {longest['step'] - step}, ends at {longest['local']}"
    runs = timed.with_columns(run=pl.struct("series_id", "value").rle_id()).group_by("run", maintain_order=True)
    flat = runs.agg(pl.len(), pl.col("value", "local").first()).drop_nulls().sort("len", descending=True)
    if flat.height:
        run = flat.row(0, named=True)
        lines.append(f"the longest run of one value, {run['value']:g}, is {run['len'] * step} from {run['local']} on")
    return lines


def _profile_lines(means: pl.DataFrame, target: str, every: dt.timedelta) -> list[str]:
    """The course of the day and the week, and the errors of simple forecasts against that of the mean."""
    by_hour = means.group_by(pl.col("local").dt.hour()).agg(pl.col("value").mean()).sort("local")["value"].to_numpy()
    by_day = means.group_by(pl.col("local").dt.weekday()).agg(pl.col("value").mean()).sort("local")["value"].to_numpy()
    values = means["value"].to_numpy()
    plain = float(np.abs(values - values.mean()).mean()) or 1.0
    rows = {name: before // every for name, before in BEFORE.items() if before >= every}
    errors = [f"{name} {float(np.abs(values[n:] - values[:-n]).mean()) / plain:.0%}" for name, n in rows.items()]
    by = f"by hour of the day, {'0 to 23' if every == HOUR else 'from 0'}: {_bars(by_hour)}   " if every < DAY else ""
    what = "an hour's" if every == HOUR else "a day's" if every == DAY else f"the {every // HOUR} hours'"
    return [
        f"{target} {by}Monday to Sunday: {_bars(by_day)}",
        f"taken for {what} value, another misses by, relative to the mean of all: {', '.join(errors)}",
    ]


def _bars(values: np.ndarray) -> str:
    low, span = values.min(), float(np.ptp(values)) or 1.0
    return "".join(BARS[round((len(BARS) - 1) * float(value - low) / span)] for value in values)
