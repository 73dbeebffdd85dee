from pathlib import Path

import polars as pl
import pytest

from schemas.retrain import ValidatedManifest
from tasks.study.folds import lay_folds
from tests.runtime.builders import DAY
from tests.tutelage.data.builders import HOUR, MINUTE, START, meter, meter_with_plan, plan_after, random_readings
from tutelage.errors import DataError
from tutelage.files import write_table

SETTINGS = {
    "spec": meter(),
    "folds": 2,
    "score_days": 3,
    "test_days": 4,
    "history_days": 18,
    "train_days": None,
    "validation_share": 0.2,
}


def test_lay_folds__end_where_the_test_part_begins(validated: ValidatedManifest) -> None:
    first, second = lay_folds.fn(validated, **SETTINGS).folds
    assert (first.number, second.number) == (1, 2)
    assert second.end_utc == START + 20 * DAY
    assert first.end_utc == second.score_start_utc == START + 17 * DAY
    assert [fold.learn_days for fold in (first, second)] == [12, 15]


def test_lay_folds__with_training_days_learn_from_as_many_each(validated: ValidatedManifest) -> None:
    folds = lay_folds.fn(validated, **SETTINGS | {"train_days": 10}).folds
    assert [fold.learn_days for fold in folds] == [10, 10]


def test_lay_folds__are_on_full_hours(validated: ValidatedManifest, tmp_path: Path) -> None:
    """Readings from 00:30 on, the last at 22:10."""
    times = pl.col("time_utc").is_between(START + 30 * MINUTE, START + 23 * DAY + 22 * HOUR + 10 * MINUTE)
    path, digest = write_table(pl.read_parquet(validated.path).filter(times), tmp_path)
    cut = validated.model_copy(update={"path": path, "digest": digest})
    assert lay_folds.fn(cut, **SETTINGS).folds[-1].end_utc == START + 19 * DAY + 23 * HOUR


def test_lay_folds__refuse_too_short_a_history(validated: ValidatedManifest) -> None:
    with pytest.raises(DataError, match="the history is too short for the folds: 6 x 3"):
        lay_folds.fn(validated, **SETTINGS | {"folds": 6})


def test_lay_folds__end_where_the_test_part_begins_whatever_is_known_ahead(
    validated: ValidatedManifest, tmp_path: Path
) -> None:
    spec = meter_with_plan()
    readings = random_readings(spec, days=24)
    plan = plan_after(readings.tail(7 * 24 * 60), spec, 7 * DAY)
    path, digest = write_table(pl.concat([readings, plan]), tmp_path)
    with_plan = validated.model_copy(update={"path": path, "digest": digest})
    assert lay_folds.fn(with_plan, **SETTINGS | {"spec": spec}).folds[-1].end_utc == START + 20 * DAY
