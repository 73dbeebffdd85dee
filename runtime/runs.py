"""MLflow runs by explicit ids: a parent run for each piece of work, with children for what it trains.

A run is identified by its key, a digest of parameters, spec, data and code. An interrupted run is continued; a finished
one is left unchanged, and a new one is started. Which run's process is alive shows, within a home, a lock that is
released when the process ends, and to others a tag that it changes all the time (`runtime.beat`).
"""

import fcntl
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, Run
from prefect.context import get_run_context
from pydantic import BaseModel

from runtime.beat import BEAT_TAG, beat, beat_of, beating, goes_on
from runtime.paths import copies_folder, datasets_folder, home
from runtime.provenance import code_digest, git_commit
from runtime.registry import client
from runtime.servers import end_left_servers
from runtime.turns import turn
from schemas.manifests import RunManifest
from tutelage.data.dataset import DatasetSpec, load_dataset_spec
from tutelage.data.source import called, source_files
from tutelage.errors import BusyError
from tutelage.files import file_digest, value_digest

KEY_TAG = "tutelage.key"
STAGE_TAG = "tutelage.stage"
HOST_TAG = "tutelage.host"
PLACE_TAG = "tutelage.place"
PARENT_TAG = "mlflow.parentRunId"
WHERE = {"engine"}
"""Parameters that say where work runs, not what is computed: they may change when it continues."""
MOST_IN_A_BATCH = 900
"""Metrics per call; MLflow accepts a thousand."""


def work_key(flow_module: str, parameters: BaseModel, spec: DatasetSpec, files: list[Path]) -> str:
    """The key of a piece of work: a digest of its parameters (but WHERE), specs, data, and the flow's code.

    Specs and data are those of the dataset, and of the other sites that its teachers learn from.
    """
    read = [(spec, files), *_other_sites(parameters)]
    return value_digest(
        {
            "parameters": parameters.model_dump(mode="json", exclude=WHERE),
            "specs": [each.model_dump(mode="json") for each, _ in read],
            "data": [[[called(file), file_digest(file)] for file in of_dataset] for _, of_dataset in read],
            "code": code_digest(flow_module),
        }
    )


def _other_sites(parameters: BaseModel) -> list[tuple[DatasetSpec, list[Path]]]:
    """The spec and the files of the other sites that the parameters name: one pair, or none."""
    recipe = getattr(parameters, "recipe", None)
    if recipe is None or recipe.teacher.other_sites is None:
        return []
    spec = load_dataset_spec(datasets_folder() / f"{recipe.teacher.other_sites}.yaml")
    return [(spec, source_files(spec.source, copies_folder(spec.name)))]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name: recipe.teacher.views.future_sigma."""
    flattened: dict[str, Any] = {}
    for name, value in values.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flattened


@contextmanager
def _locked(key: str) -> Iterator[None]:
    """Hold the lock of a piece of work; the kernel releases it when this process ends.

    Raises BusyError where another process holds it.
    """
    path = home() / "locks" / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError("the same work, with the same parameters, is already running here; wait for it") from None
        yield


def _is_abandoned(run: Run) -> bool:
    """Whether a RUNNING run of this home has no running process."""
    if not _is_from_here(run):
        return False
    try:
        with _locked(run.data.tags.get(KEY_TAG, run.info.run_id)):
            return True
    except BusyError:
        return False


def experiment(name: str) -> str:
    """The id of an experiment, created where it is missing; a local store keeps its artifacts under `home()`."""
    existing = client().get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    local = mlflow.get_tracking_uri().startswith(("sqlite:", "file:"))
    location = (home() / "mlflow-artifacts" / name).as_uri() if local else None
    return client().create_experiment(name, artifact_location=location)


def _search(experiment_id: str, condition: str) -> list[Run]:
    return list(client().search_runs([experiment_id], condition, max_results=1000))


def _start(experiment_id: str, name: str, tags: dict[str, str]) -> str:
    return str(client().create_run(experiment_id, run_name=name, tags=tags).info.run_id)


def place_tags() -> dict[str, str]:
    """Tags of this machine and home; a path is nobody else's business."""
    host = socket.gethostname()
    return {HOST_TAG: host, PLACE_TAG: value_digest([host, home()])[:16]}


def _is_from_here(run: Run) -> bool:
    return bool(run.data.tags.get(PLACE_TAG) == place_tags()[PLACE_TAG])


def _tags(key: str) -> dict[str, str]:
    return {KEY_TAG: key, "git_commit": git_commit()} | place_tags()


def continued_run(experiment_id: str, key: str, *, stage: str, name: str) -> str:
    """The unfinished run of this work, or a new one. Runs of other work without a running process become KILLED.

    One that another machine, or another home, has begun is watched first. Raises BusyError where its work goes on.
    """
    for run in _search(experiment_id, "attributes.status = 'RUNNING'"):
        if run.data.tags.get(KEY_TAG) != key and _is_abandoned(run):
            client().set_terminated(run.info.run_id, "KILLED")
    silent: set[str | None] = set()
    while True:
        with turn(f"work-{key[:32]}", "beginning the same work"):
            unfinished = [run for run in _same_work(experiment_id, key, stage) if run.info.status != "FINISHED"]
            if not unfinished:
                return _start(experiment_id, name, _tags(key) | {STAGE_TAG: stage, BEAT_TAG: "begun"})
            run = unfinished[0]
            if run.info.status != "RUNNING" or _is_from_here(run) or beat_of(run) in silent:
                return _continue(run)
        if goes_on(run):
            where = run.data.tags.get(HOST_TAG, "another machine")
            raise BusyError(f"the same work, with the same parameters, is already running on {where}; wait for it")
        silent.add(beat_of(run))


def _continue(run: Run) -> str:
    run_id = str(run.info.run_id)
    beat(run_id)  # whoever else watches it sees that it goes on
    for tag, value in place_tags().items():
        client().set_tag(run_id, tag, value)
    client().update_run(run_id, status="RUNNING")
    return run_id


def finished_run(experiment_id: str, key: str, *, stage: str) -> str | None:
    """The finished run of this work, or None."""
    same = _same_work(experiment_id, key, stage)
    return next((str(run.info.run_id) for run in same if run.info.status == "FINISHED"), None)


def _same_work(experiment_id: str, key: str, stage: str) -> list[Run]:
    return _search(experiment_id, f"tags.`{KEY_TAG}` = '{key}' and tags.`{STAGE_TAG}` = '{stage}'")


def describe_run(run_id: str, parameters: BaseModel, spec: DatasetSpec, *, leave_out: Collection[str] = ()) -> None:
    """Log the parameters except WHERE and those in `leave_out`, and tag the flow run that does the work."""
    context = get_run_context()
    flow_run_id = str(getattr(getattr(context, "task_run", None), "flow_run_id", None) or "")
    client().set_tag(run_id, "prefect.flow_run_id", flow_run_id)
    client().set_tag(run_id, "spec_digest", value_digest(spec.model_dump(mode="json")))
    values = flat(parameters.model_dump(mode="json", exclude=WHERE.union(leave_out)))
    client().log_batch(run_id, params=[Param(name, str(value)) for name, value in values.items()])


def child_runs(
    experiment_id: str, run_id: str, key: str, names: Mapping[str, str], *, tag: str = STAGE_TAG
) -> dict[str, str]:
    """The ids of a run's children by tag value; missing ones are started. names: run names by tag value."""
    existing = {run.data.tags.get(tag): run for run in _search(experiment_id, f"tags.`{PARENT_TAG}` = '{run_id}'")}
    children = {}
    for value, name in names.items():
        if value in existing:
            children[value] = str(existing[value].info.run_id)
        else:
            children[value] = _start(experiment_id, name, _tags(key) | {PARENT_TAG: run_id, tag: value})
    return children


@contextmanager
def opened_alone(key: str, open_runs: Callable[[], RunManifest]) -> Iterator[RunManifest]:
    """The MLflow runs of one piece of work: FINISHED if the block succeeds, FAILED otherwise.

    Raises BusyError where another process does the same work, here or on another machine.
    """
    with _locked(key):
        end_left_servers()
        run = open_runs()
        try:
            with beating(run.run_id):
                yield run
        except BaseException:
            _end(run, "FAILED")
            raise
        _end(run, "FINISHED")


def _end(run: RunManifest, status: str) -> None:
    for run_id in (*run.children.values(), run.run_id):
        client().set_terminated(run_id, status)


def log_history(run_id: str, rows: list[dict[str, float]], *, step: str = "epoch") -> None:
    """Log the metrics of each step once: rows up to the last logged step are skipped, so a retry repeats nothing."""
    if not rows:
        return
    names = [name for name in rows[0] if name != step]
    logged = [metric.step for metric in client().get_metric_history(run_id, names[0])]
    last, time_ms = max(logged, default=0), mlflow.utils.time.get_current_time_millis()
    metrics = [Metric(n, row[n], time_ms, int(row[step])) for row in rows if row[step] > last for n in names]
    for start in range(0, len(metrics), MOST_IN_A_BATCH):
        client().log_batch(run_id, metrics=metrics[start : start + MOST_IN_A_BATCH])


def log_metrics(run_id: str, metrics: Mapping[str, float]) -> None:
    """Log final metrics once: metrics that the run already has are not changed."""
    logged = client().get_run(run_id).data.metrics
    for name, value in metrics.items():
        if name not in logged:
            client().log_metric(run_id, name, value)
