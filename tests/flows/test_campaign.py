"""Privilege that ends: a campaign of minutes and sub-meters, then an hourly meter alone."""

import datetime as dt
import os
from pathlib import Path

import polars as pl
import pytest
import yaml

from flows.campaign import VARIABLE, write_campaign
from flows.forecast import forecast
from flows.monitor import monitor
from flows.retrain import retrain
from flows.rollback import rollback
from runtime.paths import datasets_folder, home
from schemas.forecast import ForecastParameters
from schemas.monitor import MonitorParameters
from schemas.promotion import RollbackParameters
from schemas.verdict import Verdict
from tests.flows.test_retrain import small
from tests.household import SPECS, write_slice
from tests.tutelage.data.builders import HOUR
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.quality import clean
from tutelage.data.readings import read_readings
from tutelage.data.resample import privileged_shares, student_table
from tutelage.data.source import source_files
from tutelage.files import read_json

END = dt.datetime(2010, 7, 10, 23, tzinfo=dt.UTC)
LAST = dt.datetime(2010, 7, 30, 23, tzinfo=dt.UTC)
NAME = "ended"


def test_write_campaign__has_the_household_s_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "nowhere")
    monkeypatch.setenv("TUTELAGE_DATASETS", str(SPECS))
    folder = write_campaign()
    assert os.environ[VARIABLE] == str(folder)
    assert pl.scan_csv(folder / "hours.csv").collect_schema().names() == ["date_time", "Global_active_power"]
    tables = {}
    for name in ("household", "campaign"):
        spec = load_dataset_spec(SPECS / f"{name}.yaml")
        tables[name] = student_table(clean(read_readings(source_files(spec.source), spec), spec), spec)
    [change] = spec.step_changes
    since = change.since - dt.timedelta(days=100)
    of_household, of_campaign = (table.filter(pl.col("time_utc") >= since) for table in tables.values())
    assert of_campaign.height == (100 + 120) * 24
    assert of_campaign[spec.target].equals(of_household[spec.target], null_equal=True)
    during = pl.col("time_utc") < change.since
    before, after = of_campaign.filter(during), of_campaign.filter(~during)
    assert privileged_shares(after, spec) == {"minutes": 0, "auxiliary": 0}
    assert min(privileged_shares(before, spec).values()) > 0.97


@pytest.fixture(scope="module")
def files(prefect_server: None) -> tuple[Path, Path]:
    """A slice of the household, in minutes with sub-meters up to END, then hourly without them."""
    folder = datasets_folder() / NAME
    write_slice(folder, name=NAME, days=40)
    rows = pl.read_csv(folder / f"{NAME}.csv", infer_schema=False)
    content = yaml.safe_load((folder / f"{NAME}.yaml").read_text())
    ended = pl.col("date_time") >= f"{END + dt.timedelta(hours=1):%Y-%m-%d %H:%M:%S}"
    minutes, hours = folder / "1-minutes.csv", folder / "2-hours.csv"
    rows.filter(~ended).write_csv(minutes)
    on_the_hour = pl.col("date_time").str.ends_with(":00:00")
    rows.filter(ended & on_the_hour).select("date_time", "Global_active_power").write_csv(hours)
    for column in content["columns"]:
        column |= {"until": END} if column["role"] == "privileged" else {}
    content |= {"source": {"path": f"{folder}/?-*.csv"}, "step_changes": [{"since": END, "raw_step": "PT1H"}]}
    (datasets_folder() / f"{NAME}.yaml").write_text(yaml.safe_dump(content))
    return minutes, hours


@pytest.fixture(scope="module")
def verdict(files: tuple[Path, Path]) -> Verdict:
    return retrain(small(NAME, horizon_hours=6, lookback_hours=24, refit=True))


def test_retrain__says_how_much_of_the_privileged_data_each_part_has(verdict: Verdict) -> None:
    shares = {name: (part.minutes, part.auxiliary) for name, part in verdict.parts.items()}
    assert shares["train"] == pytest.approx((0.9, 0.9), abs=0.1)
    assert min(shares["train"]) < 1
    assert shares["validation"] == shares["test"] == (0, 0)
    page = (home() / "reports" / "latest" / verdict.task / "report.html").read_text()
    assert "<td>0.0 %</td><td>0.0 %</td>" in page


def test_retrain__refits_and_checks_for_leaks_where_there_is_no_privileged_data(verdict: Verdict) -> None:
    assert verdict.refit is not None
    assert verdict.refit.until_utc == LAST
    assert verdict.evaluation.leak_check.passed
    assert verdict.evaluation.leak_check.checked >= (2 * 6 + 2) * 8


def test_forecast_and_monitor__need_only_the_file_of_today(verdict: Verdict, files: tuple[Path, Path]) -> None:
    rollback(RollbackParameters(name=verdict.task, version=1, by="ada", why="the tests need a champion"))
    asked = {"dataset": NAME, "horizon_hours": 6}
    issued = forecast(ForecastParameters(**asked, as_of=LAST - 12 * HOUR)).path
    with_both = pl.read_parquet(issued)
    issued.unlink()
    minutes, _ = files
    kept = minutes.rename(minutes.with_suffix(".kept"))
    try:
        again = forecast(ForecastParameters(**asked, as_of=LAST - 12 * HOUR))
        for hours in range(13, 40):
            forecast(ForecastParameters(**asked, as_of=LAST - hours * HOUR))
        health = monitor(MonitorParameters(**asked, as_of=LAST))
    finally:
        kept.rename(minutes)
    assert again.fresh
    assert pl.read_parquet(again.path).equals(with_both)
    assert pl.read_parquet(health.folder / "daily.parquet")["hours"].max() > 0
    assert health.hours == 0, "the refit version has learned from all these days"
    assert read_json(health.folder / "health.json")["drift"].keys() == {"global_active_power_kw"}
