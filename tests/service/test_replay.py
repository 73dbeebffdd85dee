"""A replayed dataset on the real servers: its clock, its schedules, and the runs that come of them."""

import datetime as dt
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

from deployments.replay import start_clock
from runtime.clock import clock_path
from tests.household import write_slice
from tests.service.conftest import ROOT, Up, ran, service_environment, until
from tutelage.data.replay import Clock, Replay, read_clock, write_clock

pytestmark = [pytest.mark.service, pytest.mark.slow]

START = dt.datetime(2010, 7, 20, tzinfo=dt.UTC)
END = dt.datetime(2010, 7, 31, tzinfo=dt.UTC)


def arrange(up: Up) -> None:
    """What `up` does between deploying and starting the worker."""
    environment = up.environment | {"PREFECT_API_URL": f"{up.prefect}/api"}
    subprocess.run([sys.executable, "-m", "deployments.replay"], cwd=ROOT, env=environment, check=True)


def write_spec(up: Up, replay: dict[str, Any] | None) -> None:
    path = up.home / "datasets" / "household.yaml"
    content = yaml.safe_load(path.read_text())
    content.pop("replay", None)
    path.write_text(yaml.safe_dump(content | ({"replay": replay} if replay else {})))


def replay_schedules() -> dict[str, Any]:
    """The replay schedule of each deployment that has one, by flow."""
    with get_client(sync_client=True) as client:
        return {
            client.read_flow(deployment.flow_id).name: schedule
            for deployment in client.read_deployments()
            for schedule in deployment.schedules
            if schedule.slug == "replay"
        }


def clock_of(up: Up) -> Clock:
    clock = read_clock(up.home / "clock" / "household.json")
    assert clock is not None
    return clock


@pytest.fixture(scope="module")
def replayed(retrained: str, service: Up) -> Iterator[Up]:
    write_spec(service, {"start": START, "end": END, "hours_per_minute": 24})
    # A clock that has run before: a new one would start a retrain of the default size at once.
    write_clock(Clock(dt.datetime.now(dt.UTC), START, END, 24), service.home / "clock" / "household.json")
    arrange(service)
    yield service
    write_spec(service, None)
    arrange(service)
    assert replay_schedules() == {}
    assert not (service.home / "clock" / "household.json").exists()


def issue_times(up: Up) -> set[dt.datetime]:
    files = (up.home / "forecasts" / "household-24h").glob("*/forecast.parquet")
    return {pl.read_parquet(file)["issue_time_utc"][0] for file in files}


def test_replay__the_three_flows_keep_the_data_s_pace(replayed: Up) -> None:
    schedules = replay_schedules()
    intervals = {flow: found.schedule.rrule.rsplit("=", 1)[1] for flow, found in schedules.items()}
    assert intervals == {"forecast": "1", "monitor": "3", "retrain": "7"}
    assert all(found.active for found in schedules.values())


def test_replay__a_run_without_as_of_takes_the_replayed_hour(replayed: Up) -> None:
    before = issue_times(replayed)
    run = ran("forecast/household", {"dataset": "household"})
    hour = clock_of(replayed).hour_at(run.expected_start_time)
    assert START <= hour < START + dt.timedelta(days=4)
    assert issue_times(replayed) - before == {hour}


def test_replay__a_given_as_of_is_left_alone(replayed: Up) -> None:
    ran("forecast/household", {"dataset": "household", "as_of": "2010-07-15T06:00:00Z"})
    assert dt.datetime(2010, 7, 15, 6, tzinfo=dt.UTC) in issue_times(replayed)


def test_replay__the_service_keeps_time_and_a_new_start_goes_on_from_there(replayed: Up) -> None:
    first = clock_of(replayed)
    until(lambda: clock_of(replayed).wall > first.wall + dt.timedelta(seconds=2), 30)
    arrange(replayed)
    again = clock_of(replayed)
    assert again.data >= first.data + dt.timedelta(hours=0.8)
    assert again.data - first.data <= (again.wall - first.wall) * 24 * 60


def test_replay__its_schedule_makes_runs_that_move_on(replayed: Up) -> None:
    """Schedule → run: nobody starts it."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("forecast/household")
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    begun = dt.datetime.now(dt.UTC)

    def done() -> Any:
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(deployment_filter=wanted)
        # At five past an hour the other schedule may have asked before there was a champion.
        runs = [run for run in runs if run.auto_scheduled and run.expected_start_time > begun]
        return [run for run in runs if run.state.is_final() and run.state.name != "Cancelled"]

    [run, *_] = until(done, 240)
    assert run.state.name == "Completed", run.state.message
    assert clock_of(replayed).hour_at(run.expected_start_time) in issue_times(replayed)
    assert time.time() - run.expected_start_time.timestamp() < 240


def test_replay__time_that_a_running_service_has_counted_is_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It failed in CI: specs were read for two seconds, in which the service moved the clock on."""
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    write_clock(Clock(dt.datetime.now(dt.UTC), START, END, 24), clock_path("household"))
    shown: list[Clock] = []

    def moved_by_the_service(path: Path) -> Clock:
        before = read_clock(path)
        assert before is not None
        shown.append(before.moved(dt.datetime.now(dt.UTC)))
        return shown[-1]

    monkeypatch.setattr("deployments.replay.read_clock", moved_by_the_service)
    assert not start_clock("household", Replay(start=START, end=END, hours_per_minute=24))[1]
    after = read_clock(clock_path("household"))
    assert after is not None
    assert after.data == shown[0].data
    assert after.wall >= shown[0].wall


def test_replay__a_bad_spec_is_told_in_a_sentence(tmp_path: Path) -> None:
    """`make up` shows what its steps say: no server is asked before the specs are read."""
    write_slice(tmp_path / "datasets", name="household", days=1)
    path = tmp_path / "datasets" / "household.yaml"
    path.write_text(path.read_text() + "replay: {start: 2010-07-30T00:00:00Z, end: 2010-07-20T00:00:00Z}\n")
    refused = subprocess.run(
        [sys.executable, "-m", "deployments.replay"],
        cwd=ROOT,
        env=service_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "dataset spec household.yaml: replay: start 2010-07-30 00:00:00+00:00 is not before"
    )
    assert "Traceback" not in refused.stderr
