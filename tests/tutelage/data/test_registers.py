from pathlib import Path

import pytest

from tests.tutelage.data.builders import HOUR, METER, START, meter, write_csv
from tutelage.data.dataset import DatasetSpec
from tutelage.data.readings import read_readings
from tutelage.data.rules import Duplicate

REGISTER = meter(
    columns=[METER["columns"][0] | {"reading": "register", "aggregation": "sum"}], raw_step="PT1H", quality={}
)


def read_register(folder: Path, hours: list[int], totals: list[str], spec: DatasetSpec) -> list[float | None]:
    rows = [f"{START + hour * HOUR:%Y-%m-%d %H:%M:%S},{total}" for hour, total in zip(hours, totals, strict=True)]
    table = read_readings([write_csv(folder / "meter.csv", "time,power", *rows)], spec)
    assert table.height == len(rows)
    return [None if value is None else round(value, 6) for value in table["power_kw"]]


@pytest.mark.bad_input
def test_register__its_increases_are_the_readings_and_a_drop_or_a_gap_is_none(tmp_path: Path) -> None:
    totals = ["99998.2", "99999.1", "0.4", "1.3", "1401.3", "1401.8"]
    hours = [0, 1, 2, 3, 3 + 30 * 24, 4 + 30 * 24]
    assert read_register(tmp_path, hours, totals, REGISTER) == [0.9, None, 0.9, None, 0.5, None]
    at_end = REGISTER.model_copy(update={"timestamp": REGISTER.timestamp.model_copy(update={"marks": "end"})})
    assert read_register(tmp_path, hours, totals, at_end) == [None, 0.9, None, 0.9, None, 0.5]


@pytest.mark.bad_input
def test_register__rows_in_any_order_doubled_or_unreadable(tmp_path: Path) -> None:
    assert read_register(tmp_path, [2, 1, 0], ["7", "4", "2"], REGISTER) == [None, 3, 2]
    assert read_register(tmp_path, [0, 1, 1, 2], ["2", "4", "5", "7"], REGISTER) == [2, 3, 3, None]
    last = meter(**{"columns": [c.model_dump() for c in REGISTER.columns], "raw_step": "PT1H"}).model_copy(
        update={"quality": REGISTER.quality.model_copy(update={"duplicate_time": Duplicate(tolerance=1, keep="last")})}
    )
    assert read_register(tmp_path, [0, 1, 1, 2], ["2", "4", "5", "7"], last) == [3, 2, 2, None]
    assert read_register(tmp_path, [0, 1, 2], ["2", "x", "7"], REGISTER) == [None, None, None]


def test_register__the_newest_total_is_known_at_its_time(tmp_path: Path) -> None:
    rows = [f"2024-07-01 0{hour}:00:00,{hour * hour}" for hour in range(5)]
    path = write_csv(tmp_path / "meter.csv", "time,power", *rows)
    table = read_readings([path], REGISTER, as_of=START + 3 * HOUR)
    assert table["power_kw"].to_list() == [1, 3, 5]


@pytest.mark.bad_input
def test_register__needs_a_sum() -> None:
    with pytest.raises(ValueError, match="aggregation must be sum"):
        meter(columns=[METER["columns"][0] | {"reading": "register"}])
