"""The chosen network as a new version of the registered model, with its documentation."""

import datetime as dt
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from prefect import get_run_logger
from prefect.events import emit_event

from runtime.artifacts import EXPORT, read_table
from runtime.champion import turn_to_change
from runtime.packaging import write_model
from runtime.registry import CHALLENGER, CHAMPION, EVALUATED, TEST_END, client, find_version
from runtime.stage import stage
from schemas.forecast import model_columns
from schemas.manifests import RunManifest
from schemas.retrain import (
    Evaluation,
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RegisteredManifest,
    RetrainParameters,
    TrainedManifest,
    ValidatedManifest,
)
from tutelage.data.dataset import DatasetSpec
from tutelage.files import read_json, value_digest
from tutelage.judge.promotion import LEAST_WEEKS
from tutelage.judge.verdict import conclude_floor, floor_sentence, gain_text, interval_text
from tutelage.model.inference import CARD, grid_of

RUN_TAG = "tutelage.run_id"
AWAITS = "awaits a person's approval"
AWAITS_APPROVAL = "tutelage.version.awaits-approval"
DECIDED = {"approval.by", "approval.declined"}
"""Tags of a version that a person has decided on."""
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, trim_blocks=True
)
TEMPLATES.globals |= {"gain_text": gain_text, "interval_text": interval_text, "floor_sentence": floor_sentence}


@stage("register", run_name="register {features.task}")
def register(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    students: TrainedManifest,
    evaluated: EvaluationManifest,
    refitted: RefitManifest | None,
    parameters: RetrainParameters,
    run: RunManifest,
) -> RegisteredManifest:
    """Register one version for this run (a retry reuses it), and set the aliases that it has earned."""
    name, evaluation = features.task, evaluated.evaluation
    _ensure_model(name, spec)
    version = _version_of(name, run)
    if version is None:
        export = _exported(students, evaluation, refitted)
        card = _model_card(features, spec, evaluation, refitted, parameters, run, read_json(export / CARD))
        source, model_id = _log_model(features, students, evaluation, refitted, run, card)
        _log_lineage(readings, validated, features, run)
        version = client().create_model_version(
            name,
            source,
            run.run_id,
            _tags(run, features, spec, evaluation, refitted),
            description=card,
            model_id=model_id,
        )
    aliases, reason = _set_aliases(name, str(version.version), evaluation, parameters)
    if parameters.promotion == "approval" and not DECIDED & set(version.tags):
        _ask_for_approval(name, str(version.version))
    get_run_logger().info("%s version %s, %s: %s", name, version.version, " and ".join(aliases), reason)
    return RegisteredManifest(
        name=name, version=str(version.version), aliases=aliases, source=evaluation.chosen, reason=reason
    )


def _set_aliases(
    name: str, version: str, evaluation: Evaluation, parameters: RetrainParameters
) -> tuple[list[str], str]:
    """Set the aliases that a version has earned, and the reason as its tag.

    It becomes the champion only where that is still the one that it was compared with, and no person has replaced this
    version by it.
    """
    aliases, reason = earned_aliases(evaluation, parameters)
    compared = None if evaluation.champion is None else evaluation.champion.version
    with turn_to_change(name) as turn:
        if CHAMPION in aliases and turn.before not in (compared, version):
            aliases = [CHALLENGER]
            reason = f"compared with {_named(compared)}, but {_named(turn.before)} is the champion by now ({reason})"
        if CHAMPION in aliases and turn.before is not None and _replaced(name, turn.before) == version:
            aliases, reason = [CHALLENGER], f"a person has put {_named(turn.before)} in its place ({reason})"
        client().set_registered_model_alias(name, CHALLENGER, version)
        client().set_model_version_tag(name, version, "promotion", reason)
        if CHAMPION in aliases and turn.before != version:
            turn.make_champion(version, "promotion")
    return aliases, reason


def _replaced(name: str, champion: str) -> str | None:
    """The version that a person replaced by the present champion; None where no person made it the champion."""
    tags = find_version(name, champion).tags
    return next((tags[f"{action}.from"] for action in ("rollback", "approval") if f"{action}.from" in tags), None)


def _named(version: str | None) -> str:
    return "no champion" if version is None else f"version {version}"


def _ask_for_approval(name: str, version: str) -> None:
    """Emit the event that starts the approve flow where the service runs."""
    resource = {"prefect.resource.id": f"tutelage.version.{name}.{version}", "prefect.resource.name": name}
    emit_event(AWAITS_APPROVAL, resource, payload={"name": name, "version": int(version)})


def _ensure_model(name: str, spec: DatasetSpec) -> None:
    try:
        client().create_registered_model(name, description=spec.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of(name: str, run: RunManifest) -> ModelVersion | None:
    versions = client().search_model_versions(f"name = '{name}' and run_id = '{run.run_id}'")
    return versions[0] if versions else None


def earned_aliases(evaluation: Evaluation, parameters: RetrainParameters) -> tuple[list[str], str]:
    """The aliases of the new version, and the reason in words."""
    if parameters.promotion == "never":
        return [CHALLENGER], "promotion is set to never"
    aliases, reason = _aliases_by_gain(evaluation)
    if parameters.promotion == "approval":
        return [CHALLENGER], f"{AWAITS}; by the gain over the champion: {reason}"
    return aliases, reason


def _aliases_by_gain(evaluation: Evaluation) -> tuple[list[str], str]:
    floor = evaluation.floor
    if floor.bars_promotion:
        # Whatever it gains over a champion or a twin: this simple forecast costs nothing.
        against = gain_text(floor.gain, f"that of {floor.baseline.label}")
        return [CHALLENGER], f"no better than a simple forecast: CRPS {against}"
    if evaluation.is_constant:
        return [CHALLENGER], "it forecasts the same for every window"
    champion = evaluation.champion
    if champion is None:
        return [CHALLENGER, CHAMPION], "there was no champion"
    if champion.differences:
        return [CHALLENGER], f"champion {champion.version} can't be compared: {'; '.join(champion.differences)}"
    if champion.gain is None:
        return [CHALLENGER], f"champion {champion.version} has seen the whole test part: nothing to compare on"
    words = f"CRPS {gain_text(champion.gain, 'its')} on {champion.gain.windows} windows"
    if champion.compared_as == "evaluated":
        words += ", both as they were before a refit"
    if (weeks := int(champion.weeks)) < LEAST_WEEKS:
        words += f"; {weeks} weeks can't decide, {LEAST_WEEKS} are needed"
    else:
        words += f"; p = {champion.gain.p:.2g} over {weeks} weeks, of at most {champion.allowed:.2g} "
        words += f"{champion.since_days:.0f} days after the last comparison"
    if champion.is_beaten:
        return [CHALLENGER, CHAMPION], f"significantly better than champion {champion.version}: {words}"
    return [CHALLENGER], f"not significantly better than champion {champion.version}: {words}"


def _tags(
    run: RunManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    evaluation: Evaluation,
    refitted: RefitManifest | None,
) -> dict[str, str]:
    tags = client().get_run(run.run_id).data.tags
    return {
        RUN_TAG: run.run_id,
        "git_commit": tags.get("git_commit", "unknown"),
        "spec_digest": value_digest(spec.model_dump(mode="json")),
        TEST_END: features.test.end_utc.isoformat(),
        "prefect.flow_run_id": tags.get("prefect.flow_run_id", ""),
        "model": evaluation.chosen.value,
        "floor": f"{conclude_floor(evaluation.floor)}: CRPS {gain_text(evaluation.floor.gain, 'its')}",
        "refit": f"on all until {refitted.end_utc:%Y-%m-%d %H:%M} UTC" if refitted else "no",
    }


def _exported(students: TrainedManifest, evaluation: Evaluation, refitted: RefitManifest | None) -> Path:
    """The folder of the student that is registered."""
    return refitted.folder / EXPORT if refitted else students.folder / EXPORT


def _model_card(
    features: FeaturesManifest,
    spec: DatasetSpec,
    evaluation: Evaluation,
    refitted: RefitManifest | None,
    parameters: RetrainParameters,
    run: RunManifest,
    card: dict[str, Any],
) -> str:
    return TEMPLATES.get_template("model_card.md").render(
        features=features,
        spec=spec,
        evaluation=evaluation,
        refitted=refitted,
        recipe=features.with_views_there(parameters.recipe),
        seed=parameters.seed,
        run=run,
        inputs=model_columns(spec),
        complete_hours=card["complete_hours"],
        lookback_hours=card["lookback_hours"],
        series=len(card["sizes"]["of_series"]) if "sizes" in card else 1,
    )


def _example(features: FeaturesManifest, card: dict[str, Any]) -> pd.DataFrame:
    """The last complete steps before the end of the validation part, as the registered model needs them.

    Of the first series that has them: one may begin late, or end early.
    """
    names = ["series_id", "time_utc", *card["observed"], *card["known_future"]]
    hours = read_table(features).filter(pl.col("time_utc") < features.validation.end_utc)
    needed = card.get("complete_hours", card["lookback_hours"]) + (card["horizon_hours"] if card["known_future"] else 0)
    rows = grid_of(card).steps(needed)
    whole = pl.all_horizontal(pl.col(names[2:]).is_not_null()).cast(pl.Int64)
    ends = hours.with_row_index("row").filter(whole.rolling_sum(rows).over("series_id") == rows)
    last = int(ends.filter(pl.col("series_id") == pl.col("series_id").first())["row"][-1]) + 1
    table = hours.slice(last - rows, rows).select(names).to_pandas()
    table["time_utc"] = table["time_utc"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    return table


def _log_model(
    features: FeaturesManifest,
    students: TrainedManifest,
    evaluation: Evaluation,
    refitted: RefitManifest | None,
    run: RunManifest,
    card: str,
) -> tuple[str, str]:
    """Log the chosen network as a model of the run, with everything needed to load it; return its URI and id.

    After a refit the evaluated network is stored with it, because the next retrain may have to compare with that one.

    Ids are passed explicitly: MLflow's `log_model` would use the experiment and run active in this thread.
    """
    evaluated = students.folder / EXPORT
    export = _exported(students, evaluation, refitted)
    model = client().create_logged_model(
        run.experiment_id, name=f"{features.task}-{evaluation.chosen}", source_run_id=run.run_id
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_model(
            path,
            export,
            _example(features, read_json(export / CARD)),
            mlflow_model=Model(model_id=model.model_id, run_id=run.run_id),
            metadata={"task": features.task, "data_digest": features.digest},
        )
        (path / "model_card.md").write_text(card, encoding="utf-8")
        if refitted:
            shutil.copytree(evaluated, path / EVALUATED)
        client().log_model_artifacts(model.model_id, str(path))
    client().finalize_logged_model(model.model_id, "READY")
    client().log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
    return f"models:/{model.model_id}", model.model_id


def _log_lineage(
    readings: ReadingsManifest, validated: ValidatedManifest, features: FeaturesManifest, run: RunManifest
) -> None:
    """Log the data of the version: the readings, and the parts of the history."""
    profile = {
        "rows": readings.rows,
        "series": readings.series,
        "rows masked or quarantined": validated.quarantined_rows,
        "train": _period(features.train.start_utc, features.train.end_utc),
        "validation": _period(features.validation.start_utc, features.validation.end_utc),
        "test": _period(features.test.start_utc, features.test.end_utc),
    }
    dataset = Dataset(
        name=features.dataset,
        digest=readings.digest[:32],
        source_type="local",
        source=json.dumps({"files": readings.source_files}),
        profile=json.dumps(profile),
    )
    client().log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _period(start: dt.datetime, end: dt.datetime) -> str:
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
