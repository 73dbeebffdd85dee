"""The sizes of a panel's series: one network learns from all of them, in units of their sizes.

A meter of 1,000 kW would else decide what a network learns, and one of 1 kW be noise to it. Values of the target, and
of columns in its unit, are divided by the size of their series: its standard deviation relative to the median series'.
A forecast is multiplied by it again. A series that training did not hold is as large as its own past says.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from tutelage.data.dataset import DatasetSpec

SMALLEST_SPREAD = 1e-6
"""Relative to its mean: a series that varies less is constant."""


@dataclass(frozen=True)
class Sizes:
    """How large each series is.

    of_series: by the series' id, the median of them is 1
    spread: standard deviation of the target in a series of size 1, in its unit
    columns: names of the columns that are divided by it
    """

    of_series: Mapping[str, float]
    spread: float
    columns: tuple[str, ...]

    def of(self, name: str, past: Float[np.ndarray, " hours"]) -> float:
        """The size of a series, from its past values of the target, in its unit, where it is not known."""
        return self.of_series[name] if name in self.of_series else (spread_of(past) or self.spread) / self.spread

    def times(
        self,
        values: Float[np.ndarray, "windows hours columns"],
        names: Sequence[str],
        factor: Float[np.ndarray, " windows"],
    ) -> Float[np.ndarray, "windows hours columns"]:
        """The values with those of `columns` multiplied by each window's factor.

        names: of the values' last columns; others may come before them
        """
        scaled = values.astype(np.float64)
        for place, name in enumerate(names, start=values.shape[2] - len(names)):
            if name in self.columns:
                scaled[:, :, place] *= factor[:, None]
        return scaled


def spread_of(values: Float[np.ndarray, " hours"]) -> float | None:
    """The standard deviation of the values that are there; of a constant its absolute value; None: they are all 0."""
    there = values[np.isfinite(values)].astype(np.float64)
    if not len(there):
        return None
    spread, level = float(there.std()), float(np.abs(there).mean())
    return (spread if spread > SMALLEST_SPREAD * level else level) or None


def find_sizes(
    hours: pl.DataFrame, spec: DatasetSpec, *, start: dt.datetime, end: dt.datetime, least: int
) -> Sizes | None:
    """The sizes of the series of the student's table, sorted by series and time; None: there is only one series.

    Only values from `start` up to, not including, `end` count, the training part. Of a series with fewer of them than
    `least`, as many of its first values do: they are the past of its first window.
    """
    names = hours["series_id"].unique(maintain_order=True).to_list()
    if len(names) == 1:
        return None
    since = hours.filter(pl.col("time_utc") >= start)
    rows = since.select("series_id", "time_utc", value=spec.target).drop_nulls()
    spreads = {}
    for (name,), values in rows.group_by("series_id", maintain_order=True):
        known = max(values.filter(pl.col("time_utc") < end).height, least)
        spreads[str(name)] = spread_of(values["value"].head(known).to_numpy())
    median = float(np.median([spread for spread in spreads.values() if spread] or [1.0]))
    unit = spec.target_column.unit
    return Sizes(
        of_series={name: (spreads.get(name) or median) / median for name in names},
        spread=median,
        columns=tuple(column.name for column in spec.columns if column.unit == unit),
    )


def in_sizes(hours: pl.DataFrame, minutes: np.ndarray, sizes: Sizes) -> tuple[pl.DataFrame, np.ndarray]:
    """The student's table and the readings within its steps, in units of the series' sizes."""
    size = hours["series_id"].replace_strict(dict(sizes.of_series), default=1.0, return_dtype=pl.Float64)
    divided = hours.with_columns(pl.col(name) / size for name in sizes.columns if name in hours.columns)
    return divided, (minutes / size.to_numpy()[:, None]).astype(minutes.dtype)


def sizes_from(content: Mapping[str, Any]) -> Sizes | None:
    """The sizes that a card, or a file of fitted values, holds; None: there was one series."""
    plain = content.get("sizes")
    return None if plain is None else Sizes(plain["of_series"], plain["spread"], tuple(plain["columns"]))
