import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import yaml
from pydantic import BaseModel

import runtime.beat
import runtime.runs
from runtime.beat import beat, beating
from runtime.paths import datasets_folder, home
from runtime.provenance import git_commit
from runtime.registry import client
from runtime.runs import (
    HOST_TAG,
    KEY_TAG,
    PARENT_TAG,
    PLACE_TAG,
    STAGE_TAG,
    child_runs,
    continued_run,
    describe_run,
    experiment,
    finished_run,
    flat,
    log_history,
    log_metrics,
    opened_alone,
    place_tags,
    work_key,
)
from schemas.forecast import ForecastParameters
from schemas.manifests import RunManifest
from schemas.retrain import RetrainParameters
from tests.runtime.builders import FLOW_RUN
from tests.tutelage.builders import recipe_of
from tests.tutelage.data.builders import meter
from tutelage.errors import BusyError
from tutelage.files import value_digest


@pytest.fixture
def runs(request: pytest.FixtureRequest) -> str:
    """An experiment for one test."""
    return experiment(f"runs-{request.node.name}")


def status_of(run_id: str) -> str:
    return str(client().get_run(run_id).info.status)


def started(runs: str, key: str, **tags: str) -> str:
    """A run of a piece of work, as this machine starts it."""
    values = {KEY_TAG: key, STAGE_TAG: "retrain"} | place_tags() | tags
    return str(client().create_run(runs, tags=values).info.run_id)


HOLD = """
import fcntl, pathlib, sys
path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
file = path.open("w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(key: str) -> Iterator[subprocess.Popen[str]]:
    """Another process at work."""
    command = [sys.executable, "-S", "-c", HOLD, str(home() / "locks" / f"{key}.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_experiment__is_made_once_with_its_files_under_home() -> None:
    made = experiment("runs-of-a-task")
    assert experiment("runs-of-a-task") == made
    assert client().get_experiment(made).artifact_location == (home() / "mlflow-artifacts" / "runs-of-a-task").as_uri()


def test_experiment__of_a_server_keeps_its_files_where_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Server:
        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str, artifact_location: str | None) -> str:
            asked.append(artifact_location)
            return "12"

    monkeypatch.setattr(runtime.runs, "client", Server)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://mlflow:5000")
    assert experiment("elsewhere") == "12"
    assert asked == [None]


@pytest.mark.parametrize("ended", [None, "FAILED", "KILLED"])
def test_continued_run__goes_on_with_an_unfinished_run(runs: str, ended: str | None) -> None:
    first = continued_run(runs, f"key-{ended}", stage="retrain", name="a retrain")
    if ended is not None:
        client().set_terminated(first, ended)
    assert continued_run(runs, f"key-{ended}", stage="retrain", name="a retrain") == first
    assert status_of(first) == "RUNNING"


def test_continued_run__starts_a_new_one_after_a_finished_one(runs: str) -> None:
    first = continued_run(runs, "key-a", stage="retrain", name="a retrain")
    assert finished_run(runs, "key-a", stage="retrain") is None
    client().set_terminated(first, "FINISHED")
    second = continued_run(runs, "key-a", stage="retrain", name="a retrain")
    assert second != first
    assert (status_of(first), status_of(second)) == ("FINISHED", "RUNNING")
    assert finished_run(runs, "key-a", stage="retrain") == first


def test_continued_run__other_work_and_other_stages_have_runs_of_their_own(runs: str) -> None:
    keys = [("key-b", "retrain"), ("key-b", "backtest"), ("key-c", "retrain")]
    made = [continued_run(runs, key, stage=stage, name="a run") for key, stage in keys]
    assert len(set(made)) == 3
    client().set_terminated(made[1], "FINISHED")
    assert finished_run(runs, "key-b", stage="retrain") is None
    assert finished_run(runs, "key-c", stage="backtest") is None


def test_continued_run__says_what_and_where_it_is(runs: str) -> None:
    run = client().get_run(continued_run(runs, "key-d", stage="retrain", name="a retrain"))
    assert run.info.run_name == "a retrain"
    tags = {KEY_TAG: "key-d", STAGE_TAG: "retrain", "tutelage.host": socket.gethostname(), "git_commit": git_commit()}
    assert tags.items() <= run.data.tags.items()


@pytest.mark.fault
def test_continued_run__a_run_whose_process_is_gone_is_killed(runs: str) -> None:
    abandoned, elsewhere = started(runs, "gone"), started(runs, "gone", **{PLACE_TAG: "another"})
    with held("alive"):
        alive = started(runs, "alive")
        continued_run(runs, "new", stage="retrain", name="a retrain")
        assert [status_of(run) for run in (abandoned, elsewhere, alive)] == ["KILLED", "RUNNING", "RUNNING"]
    continued_run(runs, "new", stage="retrain", name="a retrain")
    assert [status_of(run) for run in (elsewhere, alive)] == ["RUNNING", "KILLED"]


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and watches of parts of a second."""
    for name, seconds in {"BEAT_SECONDS": 0.1, "SILENT_SECONDS": 1.0, "POLL_SECONDS": 0.1}.items():
        monkeypatch.setattr(runtime.beat, name, seconds)


@pytest.mark.fault
def test_continued_run__never_takes_over_what_goes_on_elsewhere(runs: str, quick_watch: None) -> None:
    elsewhere = started(runs, "shared", **{PLACE_TAG: "another", HOST_TAG: "another-machine"})
    with beating(elsewhere), pytest.raises(BusyError, match=r"already running on another-machine; wait for it$"):
        continued_run(runs, "shared", stage="retrain", name="a retrain")
    assert client().get_run(elsewhere).data.tags[PLACE_TAG] == "another"


@pytest.mark.fault
@pytest.mark.parametrize("beaten", [True, False])
def test_continued_run__takes_over_what_is_silent_elsewhere(runs: str, beaten: bool, quick_watch: None) -> None:
    elsewhere = started(runs, f"silent-{beaten}", **{PLACE_TAG: "another"})
    if beaten:
        beat(elsewhere)
    assert continued_run(runs, f"silent-{beaten}", stage="retrain", name="a retrain") == elsewhere
    assert place_tags().items() <= client().get_run(elsewhere).data.tags.items()


@pytest.mark.fault
def test_continued_run__of_two_that_watch_a_silent_one_one_takes_over(
    runs: str, quick_watch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = started(runs, "contested", **{PLACE_TAG: "another"})

    def thread_tags() -> dict[str, str]:
        """Each thread stands for a machine of its own."""
        return dict.fromkeys((HOST_TAG, PLACE_TAG), threading.current_thread().name)

    def take(_: int) -> str:
        try:
            run = continued_run(runs, "contested", stage="retrain", name="a retrain")
        except BusyError:
            return "busy"
        with beating(run):
            time.sleep(2.5)
        return run

    monkeypatch.setattr(runtime.runs, "place_tags", thread_tags)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(take, range(2))) == sorted(["busy", elsewhere])


def test_continued_run__of_two_at_once_one_begins(runs: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: continued_run(runs, "at once", stage="retrain", name="a retrain"), range(4)))
    assert len(set(made)) == 1


def test_continued_run__a_run_of_this_process_is_alive(runs: str) -> None:
    """A backtest starts the retrains at its origins while it runs itself."""

    def backtest() -> RunManifest:
        return RunManifest(key="outer", experiment_id=runs, run_id=started(runs, "outer"), children={})

    with opened_alone("outer", backtest) as outer:
        continued_run(runs, "inner", stage="retrain", name="a retrain")
        assert status_of(outer.run_id) == "RUNNING"


def manifest_of(runs: str, key: str) -> RunManifest:
    run_id = started(runs, key)
    return RunManifest(key=key, experiment_id=runs, run_id=run_id, children={"twin": started(runs, key)})


def statuses(run: RunManifest) -> set[str]:
    return {status_of(run_id) for run_id in (run.run_id, *run.children.values())}


def test_opened_alone__ends_finished_with_its_children(runs: str) -> None:
    with opened_alone("well", lambda: manifest_of(runs, "well")) as run:
        assert statuses(run) == {"RUNNING"}
    assert statuses(run) == {"FINISHED"}


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.fault
def test_opened_alone__ends_failed_where_the_work_does(runs: str, error: BaseException) -> None:
    opened: list[RunManifest] = []

    def work() -> None:
        with opened_alone("ill", lambda: manifest_of(runs, "ill")) as run:
            opened.append(run)
            raise error

    with pytest.raises(type(error)):
        work()
    assert statuses(opened[0]) == {"FAILED"}
    with opened_alone("ill", lambda: manifest_of(runs, "ill")):
        pass  # the lock is free again


@pytest.mark.fault
def test_opened_alone__refuses_a_second_process(runs: str) -> None:
    def never() -> RunManifest:
        pytest.fail("a run was opened")

    with held("busy") as process:
        with pytest.raises(BusyError, match="is already running here"), opened_alone("busy", never):
            pytest.fail("the work was done")
        process.kill()
        process.wait()
        with opened_alone("busy", lambda: manifest_of(runs, "busy")) as run:  # the lock went with its process
            pass
    assert statuses(run) == {"FINISHED"}


def test_child_runs__are_started_once(runs: str) -> None:
    parent = started(runs, "family")
    first = child_runs(runs, parent, "family", {"student": "the student", "twin": "the twin"})
    second = child_runs(runs, parent, "family", {"twin": "the twin", "teacher": "the teacher"})
    assert second["twin"] == first["twin"]
    assert len({*first.values(), *second.values()}) == 3
    child = client().get_run(first["student"])
    assert child.info.run_name == "the student"
    assert {PARENT_TAG: parent, STAGE_TAG: "student", KEY_TAG: "family"}.items() <= child.data.tags.items()
    others = child_runs(runs, started(runs, "family"), "family", {"twin": "the twin"})
    assert others["twin"] != first["twin"]


def test_child_runs__of_a_study_have_a_tag_of_their_own(runs: str) -> None:
    parent = started(runs, "trials")
    trials = {"α 0.5": "α 0.5"}
    made = child_runs(runs, parent, "trials", trials, tag="tutelage.trial")
    assert child_runs(runs, parent, "trials", trials, tag="tutelage.trial") == made
    assert client().get_run(made["α 0.5"]).data.tags["tutelage.trial"] == "α 0.5"


def test_describe_run__logs_parameters_by_dotted_name(runs: str) -> None:
    class Inner(BaseModel):
        alpha: float = 0.5

    class Parameters(BaseModel):
        seed: int = 3
        recipe: Inner = Inner()
        space: Inner = Inner()

    run_id = started(runs, "described")
    describe_run(run_id, Parameters(), meter(), leave_out=("space",))
    describe_run(run_id, Parameters(), meter(), leave_out=("space",))  # a continued run says it again
    data = client().get_run(run_id).data
    assert data.params == {"seed": "3", "recipe.alpha": "0.5"}
    assert data.tags["prefect.flow_run_id"] == FLOW_RUN
    assert data.tags["spec_digest"] == value_digest(meter().model_dump(mode="json"))


def test_flat__joins_names_by_dots() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}
    assert flat({}) == {}


def test_work_key__is_that_of_parameters_spec_data_and_code(tmp_path: Path) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("1,2,3")
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.copy(file, tmp_path / "elsewhere"))
    parameters = ForecastParameters(dataset="meter")
    key = work_key("tutelage.errors", parameters, meter(), [file])
    assert work_key("tutelage.errors", ForecastParameters(dataset="meter"), meter(), [moved]) == key
    moved.write_text("1,2,4")
    others = [
        work_key("tutelage.files", parameters, meter(), [file]),
        work_key("tutelage.errors", ForecastParameters(dataset="meter", horizon_hours=6), meter(), [file]),
        work_key("tutelage.errors", parameters, meter(description="another meter"), [file]),
        work_key("tutelage.errors", parameters, meter(), [moved]),
        work_key("tutelage.errors", parameters, meter(), [file, file]),
        work_key("tutelage.errors", parameters, meter(), [file.rename(tmp_path / "another-series.csv")]),
    ]
    assert len({key, *others}) == 7


def test_work_key__other_readings_of_the_other_sites_are_other_work(tmp_path: Path) -> None:
    datasets_folder().mkdir(parents=True, exist_ok=True)
    file = tmp_path / "homes.csv"
    spec = meter(name="other-homes", source={"path": str(file)})
    path = datasets_folder() / "other-homes.yaml"
    keys = []
    for readings, description in (("1", "homes"), ("2", "homes"), ("2", "the same homes")):
        file.write_text(readings)
        changed = spec.model_copy(update={"description": description})
        path.write_text(yaml.safe_dump(changed.model_dump(mode="json")), encoding="utf-8")
        knowing = RetrainParameters(recipe=recipe_of(other_sites="other-homes"))
        keys.append(work_key("tutelage.errors", knowing, meter(), []))
    assert len(set(keys)) == 3


def steps_of(run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in client().get_metric_history(run_id, metric)]


def rows_of(epochs: int, *, step: str = "epoch") -> list[dict[str, float]]:
    return [{step: epoch, "train": float(epoch), "validation": 10.0 * epoch} for epoch in range(1, epochs + 1)]


def test_log_history__logs_each_step_once(runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.runs, "MOST_IN_A_BATCH", 3)
    run_id = started(runs, "history")
    for epochs in (0, 2, 2, 5):
        log_history(run_id, rows_of(epochs))
    assert steps_of(run_id, "train") == [(epoch, float(epoch)) for epoch in range(1, 6)]
    assert steps_of(run_id, "validation") == [(epoch, 10.0 * epoch) for epoch in range(1, 6)]
    assert set(client().get_run(run_id).data.metrics) == {"train", "validation"}


def test_log_history__of_folds_steps_by_fold(runs: str) -> None:
    run_id = started(runs, "folds")
    for fold in (1, 2, 2):
        log_history(run_id, rows_of(fold, step="fold")[-1:], step="fold")
    assert [step for step, _ in steps_of(run_id, "train")] == [1, 2]


def test_log_metrics__leaves_what_is_there(runs: str) -> None:
    run_id = started(runs, "metrics")
    log_metrics(run_id, {"crps": 0.5})
    log_metrics(run_id, {"crps": 0.25, "mae": 1.0})
    assert steps_of(run_id, "crps") == [(0, 0.5)]
    assert client().get_run(run_id).data.metrics == {"crps": 0.5, "mae": 1.0}
