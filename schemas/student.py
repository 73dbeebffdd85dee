"""The student's table as a pandera schema."""

import pandera.polars as pa
import polars as pl

from tutelage.data.dataset import DatasetSpec
from tutelage.data.steps import begin_of


def student_schema(spec: DatasetSpec) -> pa.DataFrameSchema:
    """One row per step and series, unique and where steps begin; null where a step has too few readings."""
    on_the_grid = pa.Check(
        lambda data: data.lazyframe.select(pl.col(data.key) == begin_of(spec.student_step, pl.col(data.key), spec)),
        name="full_step",
    )
    return pa.DataFrameSchema(
        {
            "series_id": pa.Column(pl.String, nullable=False),
            "time_utc": pa.Column(pl.Datetime("us", "UTC"), [on_the_grid], nullable=False),
            **{name: pa.Column(pl.Float64, nullable=True) for name in spec.names()},
        },
        unique=["series_id", "time_utc"],
        strict=True,
        ordered=True,
    )
