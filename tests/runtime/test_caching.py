import datetime as dt
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.serializers import JSONSerializer
from prefect.settings import get_current_settings
from pydantic import BaseModel

import runtime.caching
from runtime.caching import checkpoint_in, clear_checkpoints, content_key, content_of, stage_folder, stage_key
from runtime.paths import home
from schemas.manifests import RunManifest
from tests.runtime.builders import Log, features_of, trained_in
from tests.tutelage.data.builders import meter
from tutelage.distil.recipe import TrainingPlan
from tutelage.files import file_digest, value_digest
from tutelage.forecasts import Contender

MODULE = "tutelage.errors"
RUN = RunManifest(key="k", experiment_id="1", run_id="r", children={})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "readings.csv"
    path.write_text("1,2,3")
    return path


def test_content_of__a_file_is_its_name_and_its_bytes(file: Path) -> None:
    before = content_of(file)
    assert before == [file.name, file_digest(file)]
    (file.parent / "elsewhere").mkdir()
    moved = file.rename(file.parent / "elsewhere" / file.name)
    assert content_of(moved) == before
    renamed = moved.rename(moved.with_name("another-series.csv"))
    assert content_of(renamed) == ["another-series.csv", before[1]]
    (file.parent / "meter=7").mkdir()
    partition = Path(shutil.copy(renamed, file.parent / "meter=7" / file.name))
    assert content_of(partition)[0] == f"meter=7/{file.name}"
    partition.write_text("1,2,4")
    assert content_of(partition)[1] != before[1]


def test_content_of__a_manifest_is_all_but_its_paths(tmp_path: Path) -> None:
    here, there = (content_of(features_of(tmp_path / name)) for name in ("here", "there"))
    assert here == there
    assert "folder" not in here
    assert here["train"]["start_utc"] == "2024-07-01T00:00:00Z"
    assert content_of(features_of(tmp_path, digest="other")) != here


def test_content_of__a_run_is_nothing() -> None:
    assert content_of(RUN) is None


def test_content_of__a_spec_or_plan_is_its_values() -> None:
    class Sourced(BaseModel):
        path: Path

    assert content_of(meter()) == meter().model_dump(mode="json")
    assert content_of(TrainingPlan(seed=3))["seed"] == 3
    assert content_of(Sourced(path=Path("/here"))) == {"path": "/here"}, "a setting, not a stage's file"


def test_content_of__lists_are_those_of_their_items(file: Path) -> None:
    nested = [[file], (features_of(file.parent / "a"), RUN), 3, None]
    assert content_of(nested) == [
        [[file.name, file_digest(file)]],
        [content_of(features_of(file.parent / "b")), None],
        3,
        None,
    ]


@pytest.mark.parametrize("value", [3, 0.5, "text", None, True, Contender.TWIN, dt.datetime(2024, 7, 1, tzinfo=dt.UTC)])
def test_content_of__plain_values_are_themselves(value: object) -> None:
    assert content_of(value) is value


def test_stage_key__changes_with_content_and_not_with_place(file: Path) -> None:
    inputs = {"files": [file], "features": features_of(file.parent), "seed": 0}
    key = stage_key(MODULE, inputs)
    (file.parent / "elsewhere").mkdir()
    moved = Path(shutil.copy(file, file.parent / "elsewhere"))
    assert stage_key(MODULE, {"seed": 0, "features": features_of(Path("/else")), "files": [moved]}) == key
    moved.write_text("1,2,4")
    others = [
        inputs | {"files": [moved]},
        inputs | {"seed": 1},
        inputs | {"features": features_of(file.parent, horizon_hours=3)},
        inputs | {"files": [file, file]},
        inputs | {"files": [Path(shutil.copy(file, file.with_name("another-series.csv")))]},
        {"seeds": 0} | {name: inputs[name] for name in ("files", "features")},
    ]
    assert len({key, *(stage_key(MODULE, each) for each in others)}) == 7


def test_stage_key__is_the_same_in_another_run_and_another_with_other_code() -> None:
    key = stage_key(MODULE, {"seed": 0, "run": RUN})
    assert stage_key(MODULE, {"seed": 0, "run": RUN.model_copy(update={"run_id": "other"})}) == key
    assert stage_key("tutelage.files", {"seed": 0, "run": RUN}) != key


def test_stage_folder__is_the_same_for_the_same_inputs(tmp_path: Path) -> None:
    plan = TrainingPlan(seed=0)
    folder = stage_folder("teacher", MODULE, features=features_of(tmp_path), plan=plan)
    assert folder.parent == home() / "trainings" / "teacher"
    assert stage_folder("teacher", MODULE, plan=plan, features=features_of(Path("/else"))) == folder
    changed = [
        stage_folder("unprivileged", MODULE, features=features_of(tmp_path), plan=plan),
        stage_folder("teacher", MODULE, features=features_of(tmp_path), plan=TrainingPlan(seed=1)),
    ]
    assert len({folder, *changed}) == 3


def test_clear_checkpoints__removes_those_of_one_stage_only() -> None:
    finished, running = (stage_folder("teacher", MODULE, seed=seed) for seed in (10, 11))
    files = [checkpoint_in(folder, name) for folder in (finished, running) for name in ("teacher", "teacher-2")]
    assert len(set(files)) == 4
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    clear_checkpoints(finished)
    assert [path.exists() for path in files] == [False, False, True, True]
    assert not files[0].parent.exists()
    clear_checkpoints(finished)  # a stage without checkpoints


def context_of(name: str, function: Callable[..., Any]) -> Any:
    """What Prefect gives to a cache key's function, as far as it is used."""
    return SimpleNamespace(task=SimpleNamespace(name=name, fn=function))


def record_of(key: str, result: object) -> Path:
    """Prefect's record of a stage's result."""
    metadata = ResultRecordMetadata(serializer=JSONSerializer(), storage_key=key)
    path = Path(get_current_settings().results.local_storage_path) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ResultRecord(result=result, metadata=metadata).serialize())
    return path


def test_content_key__is_that_of_the_stages_name_module_and_inputs() -> None:
    key = content_key(context_of("teachers", stage_key), {"seed": 0})
    assert key == value_digest({"stage": "teachers", "key": stage_key("runtime.caching", {"seed": 0})})
    others = [
        content_key(context_of("students", stage_key), {"seed": 0}),
        content_key(context_of("teachers", stage_key), {"seed": 1}),
        content_key(context_of("teachers", file_digest), {"seed": 0}),
    ]
    assert len({key, *others}) == 4


@pytest.mark.fault
def test_content_key__forgets_a_result_whose_files_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, context = Log(), context_of("lost", stage_key)
    monkeypatch.setattr(runtime.caching, "get_run_logger", lambda: log)
    folder = tmp_path / "trained"
    folder.mkdir()
    record = record_of(content_key(context, {}), trained_in(folder))
    assert content_key(context, {}) == record.name
    assert record.exists()
    assert log.lines == []
    folder.rmdir()
    assert content_key(context, {}) == record.name
    assert not record.exists()
    [line] = log.lines
    assert "trained" in line


def test_content_key__marks_the_files_of_the_home_as_used(tmp_path: Path) -> None:
    ours, theirs = home() / "trainings" / "used", tmp_path / "readings.csv"
    ours.mkdir(parents=True)
    theirs.write_text("a user's own file")
    record = record_of(content_key(context_of("used", stage_key), {}), {"files": [str(ours), str(theirs)]})
    for path in (ours, theirs, record):
        os.utime(path, (1e9, 1e9))
    content_key(context_of("used", stage_key), {})
    assert min(ours.stat().st_mtime, record.stat().st_mtime) > 1.7e9
    assert theirs.stat().st_mtime == 1e9


@pytest.mark.fault
def test_content_key__forgets_a_result_that_lost_a_file_deep_in_it(tmp_path: Path) -> None:
    context = context_of("deep", stage_key)
    result = {"groups": [{"labels": [trained_in(tmp_path), trained_in(tmp_path / "lost")]}]}
    record = record_of(content_key(context, {}), result)
    content_key(context, {})
    assert not record.exists()


@pytest.mark.parametrize("result", [3, None, "text", [0.5, 0.25], {"crps": [[1.0]]}])
def test_content_key__keeps_results_without_files(result: object) -> None:
    context = context_of("plain", stage_key)
    record = record_of(content_key(context, {}), result)
    content_key(context, {})
    assert record.exists()


@pytest.mark.parametrize("content", ["", "no json", "{}", '{"result": "no json"}', '{"result": null}'])
def test_content_key__leaves_a_record_that_it_can_not_read_to_prefect(content: str) -> None:
    context = context_of("broken", stage_key)
    record = record_of(content_key(context, {}), 3)
    record.write_text(content)
    content_key(context, {})
    assert record.exists()
