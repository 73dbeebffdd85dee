"""A dataset with weather forecasts as they were issued, from files to a forecast."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
import yaml

from flows.forecast import forecast
from flows.retrain import retrain
from flows.rollback import rollback
from runtime.paths import datasets_folder, home
from schemas.forecast import ForecastParameters
from schemas.promotion import RollbackParameters
from tests.flows.test_retrain import small
from tutelage.errors import DataError

pytestmark = pytest.mark.usefixtures("prefect_server")

START, DAYS, NAME = dt.datetime(2024, 1, 1), 45, "windy"
HOURS = [START + dt.timedelta(hours=hour) for hour in range(24 * DAYS)]
CLOCK = "%Y-%m-%d %H:%M"


def write_windy() -> None:
    """A load that the wind drives, and every six hours a forecast of the wind, the worse the further ahead."""
    noise = np.random.default_rng(0)
    wind = 8 + np.abs(noise.normal(0, 1, len(HOURS)).cumsum() % 6 - 3)
    folder = datasets_folder() / NAME
    folder.mkdir(parents=True)
    load = {"t": [f"{time:{CLOCK}}" for time in HOURS], "p": wind**2 / 50 + noise.normal(0, 0.05, len(HOURS))}
    pl.DataFrame(load).head(-2).write_csv(folder / "load.csv")
    rows = [
        {
            "issued": f"{HOURS[begin]:{CLOCK}}",
            "t": f"{HOURS[begin + lead]:{CLOCK}}",
            "wind": max(0.0, wind[begin + lead] + noise.normal(0, 0.02 * lead)),
        }
        for begin in range(0, len(HOURS), 6)
        for lead in range(min(24, len(HOURS) - begin))
    ]
    pl.DataFrame(rows).write_csv(folder / "weather.csv")
    columns = [
        {"name": "power_kw", "source": "p", "role": "observed", "unit": "kW", "minimum": -1, "maximum": 9},
        {"name": "wind_m_s", "source": "wind", "role": "known_future", "unit": "m/s", "minimum": 0, "maximum": 30},
    ]
    spec = {
        "name": NAME,
        "description": "a load that the wind drives",
        "source": {"path": f"{folder}/*.csv"},
        "timestamp": {"columns": ["t"], "format": CLOCK, "timezone": "UTC", "issued": {"column": "issued"}},
        "target": "power_kw",
        "raw_step": "PT1H",
        "student_step": "PT1H",
        "columns": columns,
        "calendar": {"timezone": "UTC"},
    }
    (datasets_folder() / f"{NAME}.yaml").write_text(yaml.safe_dump(spec))


def test_issued__training_and_production_see_what_was_known_in_time() -> None:
    write_windy()
    verdict = retrain(small(NAME, horizon_hours=2, test_days=12))
    assert verdict.evaluation.leak_check.passed
    rollback(RollbackParameters(name=verdict.task, version=1, by="ada", why="to be asked for a forecast"))
    issued = forecast(ForecastParameters(dataset=NAME, horizon_hours=2))
    assert issued.issue_time_utc == HOURS[-2].replace(tzinfo=dt.UTC), "the hour after the last reading"
    recent = max((home() / "data" / "recent").iterdir(), key=lambda path: path.stat().st_mtime)
    ahead = pl.read_parquet(recent).filter(pl.col("time_utc") >= issued.issue_time_utc)
    weather = pl.read_csv(datasets_folder() / NAME / "weather.csv")
    last_issue = f"{HOURS[len(HOURS) - 6]:{CLOCK}}"
    expected = [
        weather.filter((pl.col("issued") == last_issue) & (pl.col("t") == f"{time:{CLOCK}}"))["wind"].item()
        for time in HOURS[-2:]
    ]
    assert ahead["wind_m_s"].to_list() == expected
    weather.filter(pl.col("t") < f"{HOURS[-1]:{CLOCK}}").write_csv(datasets_folder() / NAME / "weather.csv")
    issued.path.unlink()
    with pytest.raises(DataError, match="wind_m_s is not known of 1 of the 2 hours ahead"):
        forecast(ForecastParameters(dataset=NAME, horizon_hours=2))
