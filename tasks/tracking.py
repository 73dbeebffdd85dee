"""MLflow by explicit run ids: one parent run a retrain, with a child each for teacher, student and twin.

A run is found again by its key, the digest of parameters, spec, data and code: what was interrupted is continued, what
was finished is left alone and a new run is made. A lock that dies with its process tells the two living runs apart.
"""

import fcntl
import socket
from collections.abc import Iterator
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

from schemas.manifests import BacktestRun, RunManifest
from schemas.parameters import BacktestParameters, RetrainParameters
from tasks.caching import code_digest
from tasks.home import home
from tutelage.dataset import DatasetSpec
from tutelage.errors import BusyError
from tutelage.files import file_digest, value_digest

CHILDREN = ("teacher", "student", "twin")
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


def work_key(parameters: RetrainParameters | BacktestParameters, spec: DatasetSpec, files: list[Path]) -> str:
    """What identifies a retrain or backtest: the same parameters, spec, data and code are the same work."""
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
            raise BusyError("a retrain with the same parameters is already running here; wait for it") from None
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


def _experiment(name: str) -> str:
    """The experiment's id; with files as the store, its artifacts go under `home()`."""
    found = client().get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = mlflow.get_tracking_uri().startswith(("sqlite:", "file:"))
    location = (home() / "mlflow-artifacts" / name).as_uri() if local else None
    return client().create_experiment(name, artifact_location=location)


def _search(experiment_id: str, condition: str) -> list[Run]:
    return list(client().search_runs([experiment_id], condition, max_results=100))


def _start(experiment_id: str, name: str, tags: dict[str, str]) -> str:
    run = client().create_run(experiment_id, run_name=name, tags=tags)
    return str(run.info.run_id)


@task(name="open run", task_run_name="run {parameters.task}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
def open_run(
    key: str, parameters: RetrainParameters, spec: DatasetSpec, commit: str, backtest: BacktestRun | None
) -> RunManifest:
    """Continue this work's unfinished MLflow run, or start one, with its children and parameters."""
    experiment_id = backtest.experiment_id if backtest else _experiment(parameters.task)
    for run in _search(experiment_id, "attributes.status = 'RUNNING'"):
        if run.data.tags.get(KEY_TAG) != key and _is_abandoned(run):
            client().set_terminated(run.info.run_id, "KILLED")
    unfinished = [
        run
        for run in _search(experiment_id, f"tags.`{KEY_TAG}` = '{key}' and tags.`tutelage.stage` = 'retrain'")
        if run.info.status != "FINISHED"
    ]
    tags = {KEY_TAG: key, "tutelage.host": socket.gethostname(), "git_commit": commit}
    if unfinished:
        run_id = unfinished[0].info.run_id
        client().update_run(run_id, status="RUNNING")
    else:
        own = {"tutelage.stage": "retrain"} | ({"mlflow.parentRunId": backtest.run_id} if backtest else {})
        at = f" until {parameters.as_of:%Y-%m-%d}" if backtest else ""
        run_id = _start(experiment_id, f"{parameters.task} seed {parameters.seed}{at}", tags | own)
    context = get_run_context()
    flow_run_id = str(getattr(getattr(context, "task_run", None), "flow_run_id", None) or "")
    client().set_tag(run_id, "prefect.flow_run_id", flow_run_id)
    client().set_tag(run_id, "spec_digest", value_digest(spec.model_dump(mode="json")))
    for name, value in flat(parameters.model_dump(mode="json")).items():
        client().log_param(run_id, name, value)
    children = {}
    have = {r.data.tags["tutelage.stage"]: r for r in _search(experiment_id, f"tags.`mlflow.parentRunId` = '{run_id}'")}
    for name in CHILDREN:
        if name in have:
            children[name] = have[name].info.run_id
            continue
        child_tags = tags | {"mlflow.parentRunId": run_id, "tutelage.stage": name}
        children[name] = _start(experiment_id, f"{parameters.task} {name}", child_tags)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children=children)


def finished_figures(key: str, within: BacktestRun) -> dict[str, float] | None:
    """The figures of a retrain that a backtest has already finished, or None."""
    found = _search(within.experiment_id, f"tags.`{KEY_TAG}` = '{key}' and tags.`tutelage.stage` = 'retrain'")
    return next((dict(run.data.metrics) for run in found if run.info.status == "FINISHED"), None)


@contextmanager
def tracked_backtest(
    parameters: BacktestParameters, spec: DatasetSpec, files: list[Path], commit: str
) -> Iterator[BacktestRun]:
    """A backtest's MLflow run, in an experiment of its own; the same work has the same run, however often it is done.

    Raises BusyError where another living process does the same work.
    """
    key = work_key(parameters, spec, files)
    with _alone(key):
        experiment_id = _experiment(f"{parameters.task}-backtest")
        found = _search(experiment_id, f"tags.`{KEY_TAG}` = '{key}' and tags.`tutelage.stage` = 'backtest'")
        if found:
            run_id = found[0].info.run_id
            client().update_run(run_id, status="RUNNING")
        else:
            tags = {KEY_TAG: key, "tutelage.stage": "backtest", "tutelage.host": socket.gethostname()}
            run_id = _start(experiment_id, f"{parameters.task} backtest", tags | {"git_commit": commit})
        for name, value in flat(parameters.model_dump(mode="json")).items():
            client().log_param(run_id, name, value)
        run = BacktestRun(key=key, experiment_id=experiment_id, run_id=run_id)
        try:
            yield run
        except BaseException:
            client().set_terminated(run_id, "FAILED")
            raise
        client().set_terminated(run_id, "FINISHED")


@contextmanager
def tracked(
    parameters: RetrainParameters,
    spec: DatasetSpec,
    files: list[Path],
    commit: str,
    *,
    backtest: BacktestRun | None = None,
) -> Iterator[RunManifest]:
    """One retrain's MLflow runs, within a backtest's or by themselves: FINISHED when the block ends well, else FAILED.

    Raises BusyError where another living process does the same work.
    """
    key = work_key(parameters, spec, files)
    with _alone(key):
        run = open_run(key, parameters, spec, commit, backtest)
        try:
            yield run
        except BaseException:
            _end(run, "FAILED")
            raise
        _end(run, "FINISHED")


def _end(run: RunManifest, status: str) -> None:
    for run_id in (*run.children.values(), run.run_id):
        client().set_terminated(run_id, status)


def log_history(run_id: str, rows: list[dict[str, float]]) -> None:
    """Log an epoch's figures once: rows at or before the last logged step are left out, so a retry repeats nothing."""
    if not rows:
        return
    names = [name for name in rows[0] if name != "epoch"]
    logged = [metric.step for metric in client().get_metric_history(run_id, names[0])]
    last = max(logged, default=0)
    now = mlflow.utils.time.get_current_time_millis()
    fresh = [Metric(n, row[n], now, int(row["epoch"])) for row in rows if row["epoch"] > last for n in names]
    for start in range(0, len(fresh), 900):
        client().log_batch(run_id, metrics=fresh[start : start + 900])


def log_figures(run_id: str, figures: dict[str, float]) -> None:
    """Log final figures once: those that the run has already are left as they are."""
    have = client().get_run(run_id).data.metrics
    for name, value in figures.items():
        if name not in have:
            client().log_metric(run_id, name, value)
