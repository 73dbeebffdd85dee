import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.tutelage.data.builders import HOUR, START, export_untrained, meter, meter_with_plan, random_readings
from tutelage.errors import DataError
from tutelage.model import inference
from tutelage.model.inference import (
    Student,
    differences,
    forecast_readings,
    forecast_windows,
    load_student,
    student_window,
)

SPEC = meter()
LOOKBACK, HORIZON = 24, 3
CARD = {"lookback_hours": LOOKBACK, "horizon_hours": HORIZON, "observed": ["power_kw", "indoor_c"], "known_future": []}
PLANNED = meter_with_plan()
PLANNED_CARD = CARD | {"known_future": ["planned_c"]}
ISSUE = START + dt.timedelta(days=1, hours=12)
READINGS = random_readings(SPEC, days=3)


def without(readings: pl.DataFrame, start: dt.datetime, minutes: int) -> pl.DataFrame:
    """The readings with the power null for so many minutes."""
    gone = pl.col("time_utc").is_between(start, start + dt.timedelta(minutes=minutes), closed="left")
    return readings.with_columns(pl.when(~gone).then("power_kw").alias("power_kw"))


def test_student_window__holds_hourly_means_before_the_issue_time() -> None:
    observed, known = student_window(without(READINGS, ISSUE - HOUR, 6), SPEC, ISSUE, CARD)
    last = READINGS.filter(pl.col("time_utc").is_between(ISSUE - HOUR, ISSUE, closed="left"))
    assert observed.shape == (LOOKBACK, 2)
    assert observed[-1].tolist() == pytest.approx([last["power_kw"][6:].mean(), last["indoor_c"].mean()])
    assert known[:, 0].tolist() == [14.0, 15.0, 16.0]  # 12:00 UTC is 14:00 in Paris


def test_student_window__a_missing_hour_is_that_of_the_day_before() -> None:
    gappy = student_window(without(READINGS, ISSUE - HOUR, 7), SPEC, ISSUE, CARD)[0]
    whole = student_window(READINGS, SPEC, ISSUE, CARD)[0]
    before = student_window(READINGS, SPEC, ISSUE, CARD | {"lookback_hours": 25})[0]
    assert gappy[-1].tolist() == pytest.approx([before[0, 0], whole[-1, 1]])
    assert gappy[:-1].tolist() == whole[:-1].tolist()


@pytest.mark.parametrize(
    ("start", "hours", "serving"),
    [
        (ISSUE - LOOKBACK * HOUR, 1, {}),
        (ISSUE - HOUR, 1, {"missing_hours": "refuse"}),
        (ISSUE - HOUR, 1, {"at_most_hours": 0}),
    ],
    ids=["nothing to fill it with", "rule refuse", "more than tolerated"],
)
@pytest.mark.bad_input
def test_student_window__refuses_an_hour_that_can_not_be_filled(
    start: dt.datetime, hours: int, serving: dict[str, Any]
) -> None:
    spec = SPEC.model_copy(update={"serving": SPEC.serving.model_copy(update=serving)})
    with pytest.raises(DataError, match=r"^at 2024-07-02 12:00 UTC 23 of 24 past hours can be used, and the"):
        student_window(without(READINGS, start, 60 * hours), spec, ISSUE, CARD)


@pytest.mark.parametrize("issue", [START + 23 * HOUR, START, START + 100 * HOUR], ids=["short", "none", "long ago"])
@pytest.mark.bad_input
def test_student_window__refuses_a_short_past(issue: dt.datetime) -> None:
    with pytest.raises(DataError, match=r"of 24 past hours can be used, and the others can't be filled by rule season"):
        student_window(READINGS, SPEC, issue, CARD)


def test_student_window__holds_what_is_known_of_each_hour_ahead() -> None:
    readings = random_readings(PLANNED, days=3)
    ahead = readings.filter(pl.col("time_utc").is_between(ISSUE, ISSUE + HORIZON * HOUR, closed="left"))
    _, known = student_window(readings, PLANNED, ISSUE, PLANNED_CARD)
    np.testing.assert_allclose(known[:, 3], ahead["planned_c"].to_numpy().reshape(HORIZON, 60).mean(axis=1))


@pytest.mark.parametrize("absent", [[0, 1, 2], [2], [1]], ids=["all hours", "the last", "one between"])
@pytest.mark.bad_input
def test_student_window__refuses_an_unknown_hour_ahead(absent: list[int]) -> None:
    hours = [ISSUE + hour * HOUR for hour in absent]
    readings = random_readings(PLANNED, days=3).filter(~pl.col("time_utc").dt.truncate("1h").is_in(hours))
    readings = readings.filter(pl.col("time_utc") < ISSUE + HORIZON * HOUR)
    with pytest.raises(DataError, match="2024-07-02 12:00 UTC"):
        student_window(readings, PLANNED, ISSUE, PLANNED_CARD)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    folder: Path = tmp_path_factory.mktemp("student") / "export"
    export_untrained(SPEC, folder, lookback=LOOKBACK, horizon=HORIZON)
    return load_student(folder)


def test_forecast_readings__forecasts_each_window_as_it_does_alone(student: Student) -> None:
    times = [ISSUE, ISSUE + 5 * HOUR]
    together = forecast_readings(student, READINGS, SPEC, times)
    assert (together.mean.shape, together.quantiles.shape) == ((2, HORIZON), (2, HORIZON, 99))
    for row, time in enumerate(times):
        observed, known = student_window(READINGS, SPEC, time, student.card)
        alone = forecast_windows(student, observed[None], known[None])
        assert np.array_equal(together.mean[row : row + 1], alone.mean)
        assert np.array_equal(together.quantiles[row : row + 1], alone.quantiles)
    assert not np.array_equal(together.mean[0], together.mean[1])


def test_forecast_windows__does_not_depend_on_the_chunks(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    observed, known = noise.uniform(0, 15, (10, LOOKBACK, 2)), np.zeros((10, HORIZON, 3))
    whole = forecast_windows(student, observed, known)
    monkeypatch.setattr(inference, "CHUNK_WINDOWS", 3)
    parts = forecast_windows(student, observed, known)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(parts.quantiles, whole.quantiles, rtol=1e-4, atol=1e-3)
    assert (whole.mean.dtype, whole.quantiles.dtype) == (np.float64, np.float64)


SIZES = {"of_series": {"meter": 2.0}, "spread": 3.0, "columns": ["power_kw"]}


@pytest.fixture(scope="module")
def sized(student: Student) -> Student:
    return replace(student, card=student.card | {"sizes": SIZES})


def test_forecast_windows__divides_by_a_series_size_and_multiplies_again(student: Student, sized: Student) -> None:
    noise, half = np.random.default_rng(0), np.array([0.5, 1.0])
    observed, known = noise.uniform(0, 15, (2, LOOKBACK, 2)), np.zeros((2, HORIZON, 3))
    found = forecast_windows(sized, observed, known, ["meter"] * 2)
    expected = forecast_windows(student, observed * half, known)
    np.testing.assert_allclose(found.mean, 2 * expected.mean)
    np.testing.assert_allclose(found.quantiles, 2 * expected.quantiles)


def test_forecast_windows__an_unknown_series_is_as_large_as_its_past(student: Student, sized: Student) -> None:
    observed, known = np.random.default_rng(0).uniform(0, 15, (1, LOOKBACK, 2)), np.zeros((1, HORIZON, 3))
    size = observed[0, :, 0].std() / 3.0
    expected = forecast_windows(student, observed * np.array([1 / size, 1.0]), known)
    for names in (["new"], []):
        found = forecast_windows(sized, observed, known, names)
        np.testing.assert_allclose(found.quantiles, size * expected.quantiles, rtol=1e-6)


def test_forecast_readings__knows_the_series(sized: Student) -> None:
    observed, known = student_window(READINGS, SPEC, ISSUE, sized.card)
    by_name = forecast_windows(sized, observed[None], known[None], ["meter"])
    assert np.array_equal(forecast_readings(sized, READINGS, SPEC, [ISSUE]).mean, by_name.mean)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"calendar": {"timezone": "Asia/Tokyo"}}, ["its timezone is Europe/Paris, not Asia/Tokyo"]),
        ({"student_step": "PT15M"}, ["its student_step is 1 h, not 15 min"]),
        (
            {"timestamp": {"columns": ["time"], "timezone": "Asia/Kolkata"}},
            ["its student_step is 1 h from minute 0 of the day on, not 1 h from minute 30 on"],
        ),
    ],
)
def test_differences__of_a_card_and_a_spec(student: Student, changes: dict[str, Any], found: list[str]) -> None:
    assert differences(student.card, meter(**changes), horizon_hours=HORIZON) == found


def test_differences__name_columns_and_horizon(student: Student) -> None:
    assert differences(student.card, PLANNED, horizon_hours=4) == [
        "its known_future is [], not ['planned_c']",
        "its horizon_hours is 3, not 4",
    ]
