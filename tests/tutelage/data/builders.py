"""A small made-up meter: its spec as YAML content, its readings, and an untrained student of it."""

import copy
import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from tutelage.data.dataset import DatasetSpec, Role
from tutelage.model.architectures import NetworkConfig
from tutelage.model.export import export_student, student_card
from tutelage.model.heads import Bins
from tutelage.model.layers import first_weights
from tutelage.model.networks import Forecaster
from tutelage.model.scaling import Scaler, Scalers

REPOSITORY = Path(__file__).parents[3]
START = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)

METER: dict[str, Any] = {
    "name": "meter",
    "description": "a made-up meter",
    "source": {"path": "meter.csv"},
    "timestamp": {"columns": ["time"], "timezone": "UTC"},
    "target": "power_kw",
    "raw_step": "PT1M",
    "student_step": "PT1H",
    "columns": [
        {"name": "power_kw", "source": "power", "role": "observed", "unit": "kW", "minimum": 0, "maximum": 15},
        {"name": "indoor_c", "source": "indoor", "role": "observed", "unit": "°C", "minimum": -10, "maximum": 50},
        {"name": "voltage_v", "source": "volts", "role": "privileged", "unit": "V", "minimum": 200, "maximum": 260},
    ],
    "calendar": {"timezone": "Europe/Paris", "country": "FR"},
    "quality": {
        "repeated": {"after": "PT5M", "tolerance": 0.05},
        "frozen": {"at_least": "PT3M", "tolerance": 0.05},
    },
}


def edited(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The meter's spec with other values at these paths: `columns.1.minimum`."""
    content = copy.deepcopy(METER)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = content
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place[key]
        place[int(last) if isinstance(place, list) else last] = value
    return content


def meter(**changes: Any) -> DatasetSpec:
    """The meter's spec; a dot in a path is written as two underscores."""
    return DatasetSpec.model_validate(edited({path.replace("__", "."): value for path, value in changes.items()}))


def meter_with_plan() -> DatasetSpec:
    """The meter with a column that is known ahead of time."""
    planned = METER["columns"][1] | {"name": "planned_c", "source": "planned", "role": "known_future"}
    return DatasetSpec.model_validate(METER | {"columns": [*METER["columns"], planned]})


def plan_after(readings: pl.DataFrame, spec: DatasetSpec, after: dt.timedelta) -> pl.DataFrame:
    """The readings' plan so much later, without any measured value."""
    nothing = [pl.lit(None, pl.Float64).alias(name) for name in spec.names() if name != "planned_c"]
    return readings.with_columns(pl.col("time_utc") + after, *nothing)


def write_spec(folder: Path, content: object) -> Path:
    """Write a spec as YAML."""
    path = folder / "meter.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def write_csv(path: Path, *lines: str) -> Path:
    """Write lines, the header first, as a file."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table_of(
    spec: DatasetSpec,
    power: Sequence[float | None],
    *,
    times: Sequence[dt.datetime | None] | None = None,
    series_id: str = "meter",
    **others: Sequence[float | None],
) -> pl.DataFrame:
    """Readings from START on, one raw step apart where no `times` are given; a missing column holds its minimum."""
    rows = len(power)
    columns = {c.name: others.get(c.name, [c.minimum] * rows) for c in spec.columns} | {spec.target: power}
    keys = {"series_id": [series_id] * rows, "time_utc": times or [START + i * spec.raw_step for i in range(rows)]}
    types = {"series_id": pl.String, "time_utc": pl.Datetime("us", "UTC"), **dict.fromkeys(spec.names(), pl.Float64)}
    return pl.DataFrame(keys | {name: columns[name] for name in spec.names()}, schema=types, strict=False)


def random_readings(spec: DatasetSpec, *, days: int, start: dt.datetime = START) -> pl.DataFrame:
    """Raw readings of so many days, each value drawn from the middle half of its column's range."""
    noise = np.random.default_rng(0)
    rows = dt.timedelta(days=days) // spec.finest_step
    columns = {}
    for column in spec.columns:
        share = noise.uniform(0.25, 0.75, rows)
        columns[column.name] = pl.Series(column.minimum + share * (column.maximum - column.minimum)).to_list()
    power = columns.pop(spec.target)
    return table_of(spec, power, times=[start + i * spec.finest_step for i in range(rows)], **columns)


def write_readings(path: Path, readings: pl.DataFrame, spec: DatasetSpec) -> None:
    """Write readings of one series as the CSV file that a spec reads, with its times in UTC."""
    time = pl.col("time_utc").dt.strftime("%Y-%m-%d %H:%M:%S").alias(spec.timestamp.columns[0])
    readings.select(time, *(pl.col(column.name).alias(column.source) for column in spec.columns)).write_csv(path)


def untrained_student(
    spec: DatasetSpec, *, lookback: int, horizon: int, members: int = 1, privileged: int = 0
) -> tuple[Forecaster, Bins]:
    """A network with random weights and with scalers that matter, and eight uneven bins from 0 to 12.8."""
    observed, future = len(spec.names(Role.OBSERVED)), len(spec.names(Role.KNOWN_FUTURE))
    scalers = Scalers(
        observed=Scaler((7.5, 20.0)[:observed], (2.0, 8.0)[:observed]),
        known=Scaler((0.0,) * 3 + (10.0,) * future, (1.0,) * 3 + (5.0,) * future),
        auxiliary=Scaler((230.0,), (5.0,)),
        minutes=Scaler((0.0,), (1.0,)),
    )
    config = NetworkConfig(lookback, horizon, observed, 3 + future, privileged, bins=8, width=16, dropout=0.1)
    with first_weights(0):
        network = Forecaster(config, scalers, members)
        for layer in (network.architecture.first, network.architecture.second, network.last):
            layer.weight.data *= 3  # so that a forecast answers visibly to its inputs
    return network.eval(), Bins((0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8))


def export_untrained(spec: DatasetSpec, folder: Path, *, lookback: int, horizon: int) -> None:
    """Export an untrained student of a spec."""
    network, bins = untrained_student(spec, lookback=lookback, horizon=horizon)
    export_student(network, bins, student_card(network, spec, trained_until=START), folder)
