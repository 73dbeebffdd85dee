import asyncio
import datetime as dt
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import asyncpg
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import ConcurrencyLimitStrategy

from deployments.arrange import BEGINNING, LOST, NEVER_BEGUN, SILENCE
from deployments.processes import started_at
from tests.service.conftest import ROOT, Up, command, free_port, service_environment, start, stop, until
from tests.service.postgres import running_postgres
from tests.tutelage.data.builders import meter
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.readings import read_readings
from tutelage.data.source import Source, source_files

pytestmark = pytest.mark.service


def processes(up: Up) -> dict[str, int]:
    return {name: pid for name, (pid, _) in json.loads((up.home / "service" / "processes.json").read_text()).items()}


def group_members(leader: int) -> list[str]:
    """The commands of all processes in a group."""
    listed = subprocess.run(["ps", "-eo", "pgid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split(maxsplit=1)[0] == str(leader)]


def test_up__both_pages_answer(service: Up) -> None:
    with urllib.request.urlopen(f"{service.mlflow}/health") as answer:
        assert answer.read() == b"OK"
    with urllib.request.urlopen(f"{service.prefect}/ui-settings") as answer:
        assert json.loads(answer.read())["api_url"] == f"{service.prefect}/api"


@pytest.mark.fault
def test_up__a_second_one_refuses_and_leaves_the_first_alone(service: Up) -> None:
    again = subprocess.run(
        command("up"), cwd=ROOT, env=service.environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "it is up already" in again.stderr
    assert all(started_at(pid) for pid in processes(service).values())


def test_up__a_taken_port_is_told_in_a_sentence(service: Up, tmp_path: Path) -> None:
    environment = service_environment(tmp_path, MLFLOW_PORT=service.environment["MLFLOW_PORT"])
    refused = subprocess.run(command("up"), cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.strip() == f"port {environment['MLFLOW_PORT']} is taken; set MLFLOW_PORT to another"


def test_up__lost_runs_have_automations(service: Up) -> None:
    with get_client(sync_client=True) as client:
        found = [client.read_automations_by_name(name) for name in (LOST, NEVER_BEGUN)]
    assert [automation.enabled for [automation] in found] == [True, True]
    assert [automation.trigger.within for [automation] in found] == [SILENCE, BEGINNING]


def test_deployments__retrain_runs_weekly_on_the_data_s_clock(service: Up) -> None:
    spec = load_dataset_spec(ROOT / "deployments" / "datasets" / "household.yaml")
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/household")
    assert deployment.work_queue_name == "gpu"
    [schedule] = deployment.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 3 * * 1", spec.calendar.timezone)
    assert deployment.concurrency_options.collision_strategy == ConcurrencyLimitStrategy.CANCEL_NEW
    assert deployment.global_concurrency_limit.limit == 1


def test_deployments__cron_runs_really_get_scheduled(service: Up) -> None:
    """With SQLAlchemy 2.1 the server looks healthy and schedules nothing."""
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
            runs = client.read_flow_runs(deployment_filter=wanted)
            scheduled = sorted(run.expected_start_time.timestamp() for run in runs if run.auto_scheduled)
            assert len(scheduled) >= 3 or not deployment.schedules, deployment.name
            if deployment.name == "household" and "retrain" in deployment.tags:
                assert {later - earlier for earlier, later in pairwise(scheduled)} == {7 * 24 * 3600}
                assert {dt.datetime.fromtimestamp(time, dt.UTC).hour for time in scheduled} == {2}, "03:00 at UTC+1"


async def rows(url: str, database: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(f"{url}/{database}")
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, str]]:
    """A second service, whose servers keep their records in PostgreSQL, and PostgreSQL's URL."""
    home = tmp_path_factory.mktemp("on-postgres")
    (home / "datasets").mkdir()
    with running_postgres(home / "postgres", free_port()) as url:
        yield start(home, service_environment(home, TUTELAGE_DATABASE_URL=url)), url


@pytest.mark.slow
def test_up__on_postgresql_both_keep_their_records_there(on_postgres: tuple[Up, str]) -> None:
    up, url = on_postgres
    body = json.dumps({"name": "kept"}).encode()
    request = urllib.request.Request(f"{up.mlflow}/api/2.0/mlflow/experiments/create", body)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert ("kept",) in asyncio.run(rows(url, "mlflow", "SELECT name FROM experiments"))
    deployed = asyncio.run(rows(url, "prefect", "SELECT f.name FROM deployment d JOIN flow f ON d.flow_id = f.id"))
    assert ("retrain",) in deployed
    scheduled = "SELECT count(*) FROM flow_run WHERE auto_scheduled"
    until(lambda: asyncio.run(rows(url, "prefect", scheduled))[0][0] >= 3, 90)
    assert list(up.home.rglob("*.db")) == []


@pytest.mark.slow
def test_source__of_a_postgresql_table(
    on_postgres: tuple[Up, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times with a zone and exact decimals, as databases have them."""
    _, url = on_postgres
    made = (
        "CREATE TABLE minutes AS SELECT time, 1.25::numeric(8, 2) AS power, 20.5::real AS indoor, 230 AS volts "
        "FROM generate_series('2024-07-01 02:00+02'::timestamptz, '2024-07-01 02:59+02', '1 minute') AS time"
    )
    asyncio.run(rows(url, "mlflow", made))
    monkeypatch.setenv("METERS_DATABASE", f"{url.replace('postgresql', 'postgresql+psycopg', 1)}/mlflow")
    spec = meter().model_copy(
        update={"source": Source(database="METERS_DATABASE", query="SELECT * FROM minutes ORDER BY time")}
    )
    table = read_readings(source_files(spec.source, tmp_path), spec)
    assert (table["time_utc"][0], table.height) == (dt.datetime(2024, 7, 1, tzinfo=dt.UTC), 60)
    assert table.select("power_kw", "indoor_c", "voltage_v").unique().rows() == [(1.25, 20.5, 230.0)]


@pytest.mark.slow
def test_down__ends_exactly_what_was_started(on_postgres: tuple[Up, str]) -> None:
    up, _ = on_postgres
    ours = processes(up)
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    assert sorted(ours) == ["mlflow", "prefect", "worker"]
    assert "it is down" in stop(up)
    assert [line for pid in ours.values() for line in group_members(pid)] == []
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.slow
@pytest.mark.fault
def test_down__ends_what_a_killed_up_left_behind(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    up = start(tmp_path, service_environment(tmp_path))
    ours = processes(up)
    os.kill(up.process.pid, signal.SIGKILL)
    up.process.communicate()
    assert all(started_at(pid) for pid in ours.values())
    done = subprocess.run(command("down"), cwd=ROOT, env=up.environment, capture_output=True, text=True, check=False)
    assert done.stdout.count("left behind by an earlier start") == 3
    assert [line for pid in ours.values() for line in group_members(pid)] == []


@pytest.mark.slow
def test_up__ends_all_when_its_terminal_is_closed(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    up = start(tmp_path, service_environment(tmp_path))
    ours = processes(up)
    assert up.process.stdout is not None
    up.process.stdout.close()
    os.kill(up.process.pid, signal.SIGHUP)
    assert up.process.wait(120) == 0
    assert [line for pid in ours.values() for line in group_members(pid)] == []
    assert not (up.home / "service" / "processes.json").exists()
