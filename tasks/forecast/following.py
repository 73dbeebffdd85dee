"""What a stored forecast was moved by, and how what came true moves the next one."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from runtime.paths import ISSUE_FORMAT
from schemas.forecast import ChampionManifest
from tutelage.data.dataset import KEY, DatasetSpec
from tutelage.data.grid import HOUR
from tutelage.data.steps import number_of
from tutelage.forecasts import QUANTILE_NAMES, Forecasts
from tutelage.model.aggregation import KNOT_LEVELS, Members, Weights, follow_weights
from tutelage.model.conformal import EDGES, LONGEST_HOURS, Widths, follow

WIDTH_BELOW, WIDTH_ABOVE = "width_below", "width_above"
"""Columns of a stored forecast: the factors on the distance of its quantiles from the median (`Widths`)."""
EDGES_BEFORE = "before_widening"
"""Column of a stored forecast: the quantiles q10, q50 and q90 before they were widened, a list."""
NAMES, WEIGHTS, MEMBERS = "member_names", "weights", "member_quantiles"
"""Columns of a stored forecast: what it is the average of, the weight of each, and the quantiles of each at the levels
0.05, 0.15, … 0.95 (`Members.learned_from`), member after member; lists."""
LEARNED_FROM = [WIDTH_BELOW, WIDTH_ABOVE, EDGES_BEFORE, NAMES, WEIGHTS, MEMBERS]


@dataclass(frozen=True)
class State:
    """What a series' forecasts are moved by; weights None: the fixed ones."""

    weights: Weights | None = None
    widths: Widths = field(default_factory=Widths)


def states_at(
    folder: Path,
    hours: pl.DataFrame,
    issued: dt.datetime,
    spec: DatasetSpec,
    champion: ChampionManifest,
    members: Mapping[str, Members],
) -> dict[str, State]:
    """The state of each series: that of this version's last forecast, moved by what has come true since.

    folder: of all the task's forecasts; hours: recent ones; members: each series' of the forecast to be issued
    """
    # The folders' names sort as their times do.
    every = sorted(folder.glob("issue=*/forecast.parquet"))
    earlier = [path for path in every if path.parent.name < f"issue={issued:{ISSUE_FORMAT}}"]
    if not earlier:
        return {}
    last = dt.datetime.strptime(earlier[-1].parent.name, f"issue={ISSUE_FORMAT}").replace(tzinfo=dt.UTC)
    # The last forecast of a series that was left out since is an earlier one, of this time or later.
    ended = f"issue={last - max(champion.horizon_hours, LONGEST_HOURS) * HOUR:{ISSUE_FORMAT}}"
    covering = [path for path in earlier if path.parent.name > ended]
    stored = [
        pl.read_parquet(path, columns=[*KEY, "issue_time_utc", "model_version", *LEARNED_FROM])
        for path in covering
        if {*LEARNED_FROM} <= {*pl.read_parquet_schema(path)}
    ]
    if not stored or not members:
        return {}
    # A deleted model's version numbers begin anew.
    names = [*next(iter(members.values())).shares]
    is_same = (pl.col("model_version") == champion.version) & (pl.col(NAMES).list.join(",") == ",".join(names))
    before = pl.concat(stored).filter(is_same)
    known = hours.filter(~pl.col("missing")).select("series_id", "time_utc", actual=pl.col(spec.target)).drop_nulls()
    since_last = pl.col("time_utc") >= pl.col("issue_time_utc").max().over("series_id")
    true = before.filter(since_last).join(known, on=KEY, how="inner")
    true_of = true.partition_by("series_id", as_dict=True)
    return {
        str(name): _state_after(rows, true_of.get((name,), true.clear()), members[str(name)].fixed, spec)
        for (name,), rows in before.sort("issue_time_utc").group_by("series_id", maintain_order=True)
        if name in members
    }


def _state_after(before: pl.DataFrame, true: pl.DataFrame, fixed: Weights, spec: DatasetSpec) -> State:
    """One series' state after some rows of its stored forecasts have come true."""
    last, *widths, weights = before.select("issue_time_utc", WIDTH_BELOW, WIDTH_ABOVE, WEIGHTS).row(-1)
    since = spec.grid.index(last) - 1
    step = true.select(number_of(pl.col("time_utc"), spec.grid)).to_series().to_numpy()
    # In the graph's precision, as the edges are: both may be the value that many targets have.
    actual = true["actual"].cast(pl.Float32).to_numpy().astype(np.float64)
    # The shapes are needed where nothing has come true.
    members, edges = (
        np.array(true[column].to_list(), dtype=np.float64).reshape(len(true), *shape)
        for column, shape in ((MEMBERS, (len(fixed), len(KNOT_LEVELS))), (EDGES_BEFORE, (len(EDGES),)))
    )
    return State(
        follow_weights(np.array(weights), fixed, step, members.swapaxes(0, 1), actual, since=since, grid=spec.grid),
        follow(Widths(*widths), step, edges, actual, since=since, grid=spec.grid),
    )


def with_states(table: pl.DataFrame, members: Mapping[str, Members], states: Mapping[str, State]) -> pl.DataFrame:
    """A model's forecast with each series moved by its state, and with what the next state is made of as columns."""
    parts = []
    for (name,), rows in table.group_by("series_id", maintain_order=True):
        state, of_series = states.get(str(name), State()), members[str(name)]
        mean, quantiles = (rows.select(names).to_numpy().astype(np.float64) for names in (["mean"], QUANTILE_NAMES))
        by_model = Forecasts(mean.T, quantiles[None])
        average = by_model if state.weights is None else of_series.average(state.weights)
        moved = of_series.wide(average, state.widths)
        weights = of_series.fixed if state.weights is None else state.weights
        learned_from = of_series.learned_from[:, 0].swapaxes(0, 1).reshape(len(rows), -1)
        parts.append(
            rows.with_columns(
                pl.Series("mean", moved.mean[0]),
                *(pl.Series(level, moved.quantiles[0, :, place]) for place, level in enumerate(QUANTILE_NAMES)),
                pl.lit(state.widths.below).alias(WIDTH_BELOW),
                pl.lit(state.widths.above).alias(WIDTH_ABOVE),
                pl.Series(NAMES, [[*of_series.shares]] * len(rows), dtype=pl.List(pl.String)),
                pl.Series(WEIGHTS, [weights.tolist()] * len(rows), dtype=pl.List(pl.Float64)),
                pl.Series(EDGES_BEFORE, average.quantiles[0][:, EDGES].tolist(), dtype=pl.List(pl.Float64)),
                pl.Series(MEMBERS, learned_from.tolist(), dtype=pl.List(pl.Float32)),
            )
        )
    return pl.concat(parts)
