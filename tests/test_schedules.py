"""The deployments' schedules over the two clock changes of a year, by the server's own code."""

import asyncio
import datetime as dt
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.server.schemas.schedules import CronSchedule

FILE = Path(__file__).parent.parent / "deployments" / "prefect.yaml"
PARIS = "Europe/Paris"
CHANGES = [dt.date(2026, 3, 29), dt.date(2026, 10, 25)]


def schedules() -> list[tuple[str, str, str]]:
    """The slug, the cron and the zone of each."""
    deployments = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    return [(s["slug"], s["cron"], s["timezone"]) for each in deployments for s in each.get("schedules", [])]


def runs(cron: str, zone: str, first: dt.date, days: int) -> list[dt.datetime]:
    """The times of a schedule, in UTC, on local days from `first` on."""
    start = dt.datetime.combine(first, dt.time(), ZoneInfo(zone))
    end = dt.datetime.combine(first + dt.timedelta(days=days), dt.time(), ZoneInfo(zone))
    times = asyncio.run(CronSchedule(cron=cron, timezone=zone).get_dates(n=1000, start=start, end=end))
    return [dt.datetime.fromtimestamp(time.timestamp(), dt.UTC) for time in times if time < end]


@pytest.mark.fault
@pytest.mark.parametrize("change", CHANGES, ids=["spring", "autumn"])
@pytest.mark.parametrize("cron", [cron for slug, cron, _ in schedules() if slug == "daily"])
def test_daily__is_one_run_a_day_where_the_clock_changes(cron: str, change: dt.date) -> None:
    """Also at 02:00, which in spring is no time of that day, and in autumn two."""
    days = [time.astimezone(ZoneInfo(PARIS)).date() for time in runs(cron, PARIS, change - dt.timedelta(days=1), 3)]
    assert days == [change + dt.timedelta(days=number) for number in (-1, 0, 1)]


@pytest.mark.fault
@pytest.mark.parametrize("change", CHANGES, ids=["spring", "autumn"])
def test_hourly__is_one_run_for_each_hour_that_exists(change: dt.date) -> None:
    [(_, cron, zone)] = {schedule for schedule in schedules() if schedule[0] == "hourly"}
    times = runs(cron, zone, change - dt.timedelta(days=1), 3)
    assert len(times) == 72
    assert {later - earlier for earlier, later in pairwise(times)} == {dt.timedelta(hours=1)}


def test_hourly__in_a_zone_with_summer_time_leaves_one_out() -> None:
    """Why the hourly schedules are in UTC; where this fails, Prefect has mended it."""
    times = runs("5 * * * *", PARIS, dt.date(2026, 10, 25), 1)
    assert dt.datetime(2026, 10, 25, 1, 5, tzinfo=dt.UTC) not in times
