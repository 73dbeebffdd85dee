"""The student's hourly table as a pandera schema."""

import pandera.polars as pa
import polars as pl

from tutelage.data.dataset import DatasetSpec
from tutelage.data.steps import HOUR, begin_of


def hourly_schema(spec: DatasetSpec) -> pa.DataFrameSchema:
    """One row per hour and series, unique and on full hours; null where an hour has too few readings."""
    on_the_hour = pa.Check(
        lambda data: data.lazyframe.select(pl.col(data.key) == begin_of(HOUR, pl.col(data.key), spec)),
        name="full_hour",
    )
    return pa.DataFrameSchema(
        {
            "series_id": pa.Column(pl.String, nullable=False),
            "time_utc": pa.Column(pl.Datetime("us", "UTC"), [on_the_hour], nullable=False),
            **{name: pa.Column(pl.Float64, nullable=True) for name in spec.names()},
        },
        unique=["series_id", "time_utc"],
        strict=True,
        ordered=True,
    )
