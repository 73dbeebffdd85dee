"""Pandera schemas of readings, derived from a dataset spec. A check has the name of its quality rule."""

from dataclasses import dataclass

import pandera.polars as pa
import polars as pl
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrors

from tutelage.data import quality
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import DataError

UTC_TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Breach:
    """A broken rule: its column, None for rules about whole rows, and a flag for each row of the table."""

    rule: str
    column: str | None
    broken: pl.Series


def _row_check(rule: str, broken: pl.Expr) -> pa.Check:
    """A check over whole rows that fails where the rule's expression is true."""
    return pa.Check(lambda data: data.lazyframe.select(~broken), name=rule, error=rule, ignore_na=False)


def _measured_columns(spec: DatasetSpec, *, check_range: bool) -> dict[str, pa.Column]:
    columns, by_name = {}, {column.name: column for column in spec.columns}
    for column in (by_name[name] for name in spec.names()):
        within = pa.Check.in_range(column.minimum, column.maximum, name="out_of_range", error="out_of_range")
        columns[column.name] = pa.Column(pl.Float64, [within] if check_range else [], nullable=True)
    return columns


def key_schema(spec: DatasetSpec) -> pa.DataFrameSchema:
    """The schema of readings as they were read: types, and the rules about times."""
    return pa.DataFrameSchema(
        {
            "series_id": pa.Column(pl.String, nullable=False),
            "time_utc": pa.Column(UTC_TIME, nullable=True),
            **_measured_columns(spec, check_range=False),
        },
        checks=[
            _row_check("unreadable_time", quality.unreadable_time()),
            _row_check("off_grid_time", quality.off_grid_time(spec)),
            _row_check("duplicate_time", quality.duplicate_time(spec)),
        ],
        strict=True,
        ordered=True,
    )


def value_schema(spec: DatasetSpec) -> pa.DataFrameSchema:
    """The schema of readings on a regular grid: one row per raw step and series, and the rules about values."""
    return pa.DataFrameSchema(
        {
            "series_id": pa.Column(pl.String, nullable=False),
            "time_utc": pa.Column(UTC_TIME, nullable=False),
            **_measured_columns(spec, check_range=True),
        },
        checks=[
            _row_check("repeated", quality.repeated(spec)),
            _row_check("frozen", quality.frozen(spec)),
            _row_check("flat", quality.flat(spec)),
        ],
        strict=True,
        ordered=True,
    )


def find_breaches(table: pl.DataFrame, schema: pa.DataFrameSchema, what: str) -> list[Breach]:
    """Validate a table and return the broken rules with the rows that break them.

    The validation depth is set here, so that an environment variable can't turn validation off.

    Raises DataError where the table is empty, or its columns or types don't match the schema.
    """
    if table.is_empty():
        raise DataError(f"{what}: there are no rows")
    with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        try:
            schema.validate(table, lazy=True)
        except SchemaErrors as errors:
            breaches, faults = [], []
            for error in errors.schema_errors:
                name = getattr(error.check, "name", None)
                flags = error.check_output
                if name is None or not isinstance(flags, pl.DataFrame) or flags.height != table.height:
                    faults.append(str(error).splitlines()[0])
                    continue
                column = error.schema.name if isinstance(error.schema, pa.Column) else None
                breaches.append(Breach(name, column, ~flags.to_series().fill_null(True)))
            if faults:
                raise DataError(f"{what}: " + "; ".join(faults)) from errors
            return breaches
    return []
