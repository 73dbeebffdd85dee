"""MLflow by explicit run ids: one parent run a piece of work; of a retrain with children for teacher and students.

A run is found again by its key, the digest of parameters, spec, data and code: what was interrupted is continued, what
was finished is left alone and a new run is made. A lock that dies with its process tells the two living runs apart.
"""

import fcntl
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import get_run_context
from pydantic import BaseModel

from schemas.manifests import RunManifest
from schemas.parameters import RetrainParameters
from tasks.caching import code_digest
from tasks.home import home
from tutelage.dataset import DatasetSpec
from tutelage.errors import BusyError
from tutelage.files import file_digest, value_digest

KEY_TAG = "tutelage.key"


def client() -> MlflowClient:
    """A client of the tracking server that MLFLOW_TRACKING_URI names."""
    return MlflowClient(mlflow.get_tracking_uri())


def champion_version(name: str) -> str | None:
    """The version of a registered model that is its champion, or None."""
    try:
        return str(client().get_model_version_by_alias(name, "champion").version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def work_key(parameters: BaseModel, spec: DatasetSpec, files: list[Path]) -> str:
    """What identifies a piece of work: the same parameters, spec, data and code are the same work."""
    return value_digest(
        {
            "parameters": parameters.model_dump(mode="json"),
            "spec": spec.model_dump(mode="json"),
            "data": [file_digest(file) for file in files],
            "code": code_digest(),
        }
    )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names: recipe.views.future_sigma."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


@contextmanager
def _alone(key: str) -> Iterator[None]:
    """Hold the lock of a piece of work; it goes with this process, however that ends.

    Raises BusyError where another living process holds it.
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
    """Whether a run of this machine that says RUNNING has no living process."""
    if run.data.tags.get("tutelage.host") != socket.gethostname():
        return False
    try:
        with _alone(run.data.tags.get(KEY_TAG, run.info.run_id)):
            return True
    except BusyError:
        return False


def experiment(name: str) -> str:
    """The experiment's id; with files as the store, its artifacts go under `home()`."""
    found = client().get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = mlflow.get_tracking_uri().startswith(("sqlite:", "file:"))
    location = (home() / "mlflow-artifacts" / name).as_uri() if local else None
    return client().create_experiment(name, artifact_location=location)


def _search(experiment_id: str, condition: str) -> list[Run]:
    return list(client().search_runs([experiment_id], condition, max_results=1000))


def _start(experiment_id: str, name: str, tags: dict[str, str]) -> str:
    run = client().create_run(experiment_id, run_name=name, tags=tags)
    return str(run.info.run_id)


def continued_run(experiment_id: str, key: str, *, stage: str, name: str, commit: str) -> str:
    """This work's unfinished run, or a fresh one; runs of others whose process is gone are set to KILLED."""
    for run in _search(experiment_id, "attributes.status = 'RUNNING'"):
        if run.data.tags.get(KEY_TAG) != key and _is_abandoned(run):
            client().set_terminated(run.info.run_id, "KILLED")
    same = _search(experiment_id, f"tags.`{KEY_TAG}` = '{key}' and tags.`tutelage.stage` = '{stage}'")
    unfinished = [run for run in same if run.info.status != "FINISHED"]
    if not unfinished:
        return _start(experiment_id, name, _tags(key, commit) | {"tutelage.stage": stage})
    run_id = str(unfinished[0].info.run_id)
    client().update_run(run_id, status="RUNNING")
    return run_id


def _tags(key: str, commit: str) -> dict[str, str]:
    return {KEY_TAG: key, "tutelage.host": socket.gethostname(), "git_commit": commit}


def describe_run(run_id: str, parameters: BaseModel, spec: DatasetSpec, *, leave_out: Collection[str] = ()) -> None:
    """Log what the work was asked, some parameters left out, and tag which flow run does it."""
    context = get_run_context()
    flow_run_id = str(getattr(getattr(context, "task_run", None), "flow_run_id", None) or "")
    client().set_tag(run_id, "prefect.flow_run_id", flow_run_id)
    client().set_tag(run_id, "spec_digest", value_digest(spec.model_dump(mode="json")))
    for name, value in flat(parameters.model_dump(mode="json", exclude=set(leave_out))).items():
        client().log_param(run_id, name, value)


def child_runs(
    experiment_id: str, run_id: str, key: str, names: dict[str, str], *, commit: str, tag: str = "tutelage.stage"
) -> dict[str, str]:
    """The ids of a run's children, each found by its tag or started: names are those on the page by tag value."""
    have = {r.data.tags.get(tag): r for r in _search(experiment_id, f"tags.`mlflow.parentRunId` = '{run_id}'")}
    children = {}
    for value, name in names.items():
        tags = _tags(key, commit) | {"mlflow.parentRunId": run_id, tag: value}
        children[value] = str(have[value].info.run_id) if value in have else _start(experiment_id, name, tags)
    return children


@task(name="open run", task_run_name="run {parameters.task}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
def open_run(
    key: str, parameters: RetrainParameters, spec: DatasetSpec, commit: str, within: RunManifest | None
) -> RunManifest:
    """Continue this work's unfinished MLflow run, or start one, with its children and parameters."""
    experiment_id, name = experiment(parameters.task), f"{parameters.task} seed {parameters.seed}"
    if within is not None:
        experiment_id, name = within.experiment_id, f"{name} until {parameters.as_of:%Y-%m-%d}"
    run_id = continued_run(experiment_id, key, stage="retrain", name=name, commit=commit)
    if within is not None:
        client().set_tag(run_id, "mlflow.parentRunId", within.run_id)
    describe_run(run_id, parameters, spec)
    stages = ["teacher", "student", "twin", *(["no_privilege"] if parameters.control_recipe else [])]
    names = {stage: f"{parameters.task} {stage.replace('_', ' ')}" for stage in stages}
    children = child_runs(experiment_id, run_id, key, names, commit=commit)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children=children)


@contextmanager
def tracked(
    parameters: RetrainParameters,
    spec: DatasetSpec,
    files: list[Path],
    commit: str,
    *,
    within: RunManifest | None = None,
) -> Iterator[RunManifest]:
    """One retrain's MLflow runs, by themselves or within a backtest's, as of `opened_alone`."""
    key = work_key(parameters, spec, files)
    with opened_alone(key, lambda: open_run(key, parameters, spec, commit, within)) as run:
        yield run


def finished_figures(key: str, experiment_id: str) -> dict[str, float] | None:
    """The figures of a retrain that an experiment holds finished, or None."""
    found = _search(experiment_id, f"tags.`{KEY_TAG}` = '{key}' and tags.`tutelage.stage` = 'retrain'")
    return next((dict(run.data.metrics) for run in found if run.info.status == "FINISHED"), None)


@contextmanager
def opened_alone(key: str, open_runs: Callable[[], RunManifest]) -> Iterator[RunManifest]:
    """One piece of work's MLflow runs: FINISHED when the block ends well, FAILED when it does not.

    Raises BusyError where another living process does the same work.
    """
    with _alone(key):
        run = open_runs()
        try:
            yield run
        except BaseException:
            _end(run, "FAILED")
            raise
        _end(run, "FINISHED")


def _end(run: RunManifest, status: str) -> None:
    for run_id in (*run.children.values(), run.run_id):
        client().set_terminated(run_id, status)


def log_history(run_id: str, rows: list[dict[str, float]], *, step: str = "epoch") -> None:
    """Log an epoch's figures once: rows at or before the last logged step are left out, so a retry repeats nothing."""
    if not rows:
        return
    names = [name for name in rows[0] if name != step]
    logged = [metric.step for metric in client().get_metric_history(run_id, names[0])]
    last = max(logged, default=0)
    now = mlflow.utils.time.get_current_time_millis()
    fresh = [Metric(n, row[n], now, int(row[step])) for row in rows if row[step] > last for n in names]
    for start in range(0, len(fresh), 900):
        client().log_batch(run_id, metrics=fresh[start : start + 900])


def log_figures(run_id: str, figures: dict[str, float]) -> None:
    """Log final figures once: those that the run has already are left as they are."""
    have = client().get_run(run_id).data.metrics
    for name, value in figures.items():
        if name not in have:
            client().log_metric(run_id, name, value)
