"""Stage 8: the better of student and twin becomes one version of the registered model, with all that tells of it."""

import datetime as dt
import importlib.metadata
import json
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.tasks import exponential_backoff

from schemas.manifests import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RegisteredManifest,
    RunManifest,
    TrainedManifest,
    ValidatedManifest,
)
from schemas.parameters import RetrainParameters
from schemas.serving import model_columns
from tasks.caching import is_transient
from tasks.loading import JUDGED
from tasks.tracking import client
from tutelage.dataset import DatasetSpec
from tutelage.files import read_json, value_digest

logging.getLogger("mlflow.models.signature").setLevel(logging.WARNING)  # it tells how it guesses

RUN_TAG = "tutelage.run_id"
AWAITS = "awaits a person's approval"
ASKED = "tutelage.version.awaits-approval"
SERVING = Path(__file__).parent / "serving" / "forecaster.py"
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, trim_blocks=True
)


@task(
    name="register",
    task_run_name="register {features.task}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def register(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    students: TrainedManifest,
    evaluation: EvaluationManifest,
    refitted: RefitManifest | None,
    parameters: RetrainParameters,
    run: RunManifest,
) -> RegisteredManifest:
    """Register one version for this run: a retry finds the one that is there. Set the aliases that it has earned."""
    name = features.task
    _ensure_model(name, spec)
    version = _version_of(name, run)
    if version is None:
        card = _model_card(features, spec, evaluation, refitted, parameters, run)
        source, model_id = _log_model(features, students, evaluation, refitted, run, card)
        _log_lineage(readings, validated, features, run)
        version = client().create_model_version(
            name, source, run.run_id, _tags(run, spec, evaluation, refitted), description=card, model_id=model_id
        )
    aliases, reason = _earned(evaluation, parameters)
    for alias in aliases:
        client().set_registered_model_alias(name, alias, version.version)
    client().set_model_version_tag(name, version.version, "promotion", reason)
    if parameters.promotion == "approval":
        _ask(name, str(version.version))
    get_run_logger().info("%s version %s, %s: %s", name, version.version, " and ".join(aliases), reason)
    return RegisteredManifest(
        name=name, version=str(version.version), aliases=aliases, source=evaluation.chosen, reason=reason
    )


def _ask(name: str, version: str) -> None:
    """Say that a version waits; where the service runs, its trigger starts the flow approve."""
    resource = {"prefect.resource.id": f"tutelage.version.{name}.{version}", "prefect.resource.name": name}
    emit_event(ASKED, resource, payload={"name": name, "version": int(version)})


def _ensure_model(name: str, spec: DatasetSpec) -> None:
    try:
        client().create_registered_model(name, description=spec.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of(name: str, run: RunManifest) -> ModelVersion | None:
    found = client().search_model_versions(f"name = '{name}' and run_id = '{run.run_id}'")
    return found[0] if found else None


def _earned(evaluation: EvaluationManifest, parameters: RetrainParameters) -> tuple[list[str], str]:
    """The aliases of the new version, and why, in a sentence."""
    if parameters.promotion == "never":
        return ["challenger"], "promotion is set to never"
    aliases, reason = _by_the_figures(evaluation)
    if parameters.promotion == "approval":
        return ["challenger"], f"{AWAITS}; by the figures: {reason}"
    return aliases, reason


def _by_the_figures(evaluation: EvaluationManifest) -> tuple[list[str], str]:
    gain = evaluation.gain_vs_champion
    if evaluation.champion_version is None:
        return ["challenger", "champion"], "there was no champion"
    if gain is None:
        reason = f"champion {evaluation.champion_version} has seen the whole test part: nothing to compare on"
        return ["challenger"], reason
    interval = f"{gain['low']:+.1%} to {gain['high']:+.1%}"
    figures = f"{gain['estimate']:+.1%} CRPS ({interval}) on {gain['windows']:.0f} windows"
    if evaluation.champion_as == "judged":
        figures += ", both as they were before a refit"
    if evaluation.beats_champion:
        return ["challenger", "champion"], f"better than champion {evaluation.champion_version}: {figures}"
    return ["challenger"], f"not surely better than champion {evaluation.champion_version}: {figures}"


def _tags(
    run: RunManifest, spec: DatasetSpec, evaluation: EvaluationManifest, refitted: RefitManifest | None
) -> dict[str, str]:
    tags = client().get_run(run.run_id).data.tags
    return {
        RUN_TAG: run.run_id,
        "git_commit": tags.get("git_commit", "unknown"),
        "spec_digest": value_digest(spec.model_dump(mode="json")),
        "prefect.flow_run_id": tags.get("prefect.flow_run_id", ""),
        "model": evaluation.chosen,
        "refit": f"on all until {refitted.end_utc:%Y-%m-%d %H:%M} UTC" if refitted else "no",
    }


def _model_card(
    features: FeaturesManifest,
    spec: DatasetSpec,
    evaluation: EvaluationManifest,
    refitted: RefitManifest | None,
    parameters: RetrainParameters,
    run: RunManifest,
) -> str:
    return TEMPLATES.get_template("model_card.md").render(
        features=features,
        spec=spec,
        evaluation=evaluation,
        refitted=refitted,
        recipe=parameters.recipe,
        seed=parameters.seed,
        run=run,
        takes=model_columns(spec),
    )


def _example(features: FeaturesManifest, card: dict[str, Any]) -> pd.DataFrame:
    """The last window of the validation part without a null, as the registered model takes it."""
    names = ["series_id", "time_utc", *card["observed"], *card["known_future"]]
    hours = pl.read_parquet(features.folder / "hourly.parquet").filter(
        pl.col("time_utc") < features.validation.end_utc, pl.col("series_id") == pl.col("series_id").first()
    )
    rows = card["lookback_hours"] + (card["horizon_hours"] if card["known_future"] else 0)
    whole = pl.all_horizontal(pl.col(names[2:]).is_not_null()).cast(pl.Int64)
    ends = hours.with_row_index("row").filter(whole.rolling_sum(rows) == rows)["row"]
    last = int(ends[-1]) + 1
    table = hours.slice(last - rows, rows).select(names).to_pandas()
    table["time_utc"] = table["time_utc"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    return table


def _log_model(
    features: FeaturesManifest,
    students: TrainedManifest,
    evaluation: EvaluationManifest,
    refitted: RefitManifest | None,
    run: RunManifest,
    card: str,
) -> tuple[str, str]:
    """Log the chosen student as a model of the run, with everything that a loader needs; return its URI and id.

    Where it was refit, the one that was judged lies beside it: the next retrain may have to compare with that.

    By ids alone: MLflow's own `log_model` asks which experiment and run are active in this thread.
    """
    judged = students.folder / evaluation.chosen / "export"
    export = refitted.folder / "export" if refitted else judged
    meta = read_json(export / "student.json")
    model = client().create_logged_model(
        run.experiment_id, name=f"{features.task}-{evaluation.chosen}", source_run_id=run.run_id
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_model(
            path,
            export,
            _example(features, meta),
            mlflow_model=Model(model_id=model.model_id, run_id=run.run_id),
            metadata={"task": features.task, "data_digest": features.digest},
        )
        (path / "model_card.md").write_text(card, encoding="utf-8")
        if refitted:
            shutil.copytree(judged, path / JUDGED)
        client().log_model_artifacts(model.model_id, str(path))
    client().finalize_logged_model(model.model_id, "READY")
    client().log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return f"models:/{model.model_id}", model.model_id


def write_model(path: Path, export: Path, example: pd.DataFrame, **told: Any) -> None:
    """Write an exported student as an MLflow model that loads with mlflow and onnxruntime alone.

    example: the hours of one window, times as text; told: what else `mlflow.pyfunc.save_model` shall write
    """
    card = read_json(export / "student.json")
    mlflow.pyfunc.save_model(
        path=str(path),
        python_model=str(SERVING),
        model_config={"observed": card["observed"], "known_future": card["known_future"]},
        artifacts={"student": str(export)},
        input_example=example.to_dict("records"),
        pip_requirements=[f"{p}=={importlib.metadata.version(p)}" for p in ("mlflow", "onnxruntime")],
        **told,
    )
    _complete_signature(path)


def _complete_signature(path: Path) -> None:
    """Write what the model gives into its signature: MLflow reads off the type hints only what it takes."""
    model, meta = mlflow.pyfunc.load_model(str(path)), Model.load(str(path))
    forecast = model.predict(model.input_example)
    with warnings.catch_warnings():
        # MLflow reads the table by what pandas has deprecated, and tells that integers can't be missing: none is.
        warnings.simplefilter("ignore")
        outputs = mlflow.models.infer_signature(model_output=forecast).outputs
    meta.signature.outputs = outputs  # in place: a new signature would forget that its inputs are the type hints'
    meta.save(str(path / "MLmodel"))


def _log_lineage(
    readings: ReadingsManifest, validated: ValidatedManifest, features: FeaturesManifest, run: RunManifest
) -> None:
    """The data that the version stands on: readings as read, and the parts of the history."""
    source = json.dumps({"files": readings.source_files})
    profile = json.dumps(
        {
            "rows": readings.rows,
            "series": readings.series,
            "rows masked or quarantined": validated.quarantined_rows,
            "train": _period(features.train.start_utc, features.train.end_utc),
            "validation": _period(features.validation.start_utc, features.validation.end_utc),
            "test": _period(features.test.start_utc, features.test.end_utc),
        }
    )
    dataset = Dataset(
        name=features.dataset,
        digest=readings.digest[:32],
        source_type="local",
        source=source,
        profile=profile,
    )
    client().log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _period(start: dt.datetime, end: dt.datetime) -> str:
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
