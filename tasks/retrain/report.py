"""The verdict as JSON, as an HTML page and as a Prefect artifact."""

import base64
import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect.artifacts import create_markdown_artifact

from runtime.artifacts import VERDICT
from runtime.paths import home
from runtime.registry import CHALLENGER, CHAMPION, client
from runtime.runs import log_metrics
from runtime.stage import stage
from schemas.manifests import RunManifest
from schemas.retrain import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RegisteredManifest,
    ValidatedManifest,
)
from schemas.verdict import QualityCounts, Refit, Registered, Verdict
from tutelage.files import folder_written_whole, write_json
from tutelage.judge.verdict import conclude, conclude_floor, floor_sentence, gains_sentence, interval_text

PLOTS = {
    "forecast": "One week of the test part",
    "skill": "Skill by lead time",
    "reliability": "Reliability",
    "coverage": "Inside the 80 % interval, by lead time and hour of the day",
    "losses": "Training",
}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    autoescape=lambda name: bool(name and name.endswith(".html")),
    trim_blocks=True,
)
TEMPLATES.globals["interval_text"] = interval_text


@stage("report", run_name="report {features.task}")
def report(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    evaluated: EvaluationManifest,
    refitted: RefitManifest | None,
    registered: RegisteredManifest,
    run: RunManifest,
    *,
    seed: int,
) -> Verdict:
    """Write the report's folder, point `latest` to it, and publish it to Prefect and MLflow."""
    verdict = _verdict(readings, validated, features, evaluated, refitted, registered, run, seed)
    images = {
        name: "data:image/png;base64," + base64.b64encode((evaluated.folder / f"{name}.png").read_bytes()).decode()
        for name in PLOTS
    }
    values = {"verdict": verdict, "rules": validated.rules, "registered": registered}
    folder = home() / "reports" / run.run_id
    with folder_written_whole(folder) as part:
        write_json(part / VERDICT, verdict.model_dump(mode="json"))
        page = TEMPLATES.get_template("report.html").render(**values, images=images, captions=PLOTS)
        (part / "report.html").write_text(page, encoding="utf-8")
    _point_latest(features.task, folder)
    client().log_artifacts(run.run_id, str(folder))
    # Last: MLflow's compare page shows a run's first metric.
    log_metrics(
        run.run_id, {f"quality.{rule.rule}.rows": float(validated.count(rule.rule)) for rule in validated.rules}
    )
    if refitted is not None:
        log_metrics(run.run_id, {f"refit.{name}.epochs": float(count) for name, count in refitted.epochs.items()})
    text = TEMPLATES.get_template("verdict.md").render(**values, images=images, captions=PLOTS)
    create_markdown_artifact(text, key=f"verdict-{features.task}", description=verdict.sentence)
    return verdict


def _point_latest(task_name: str, folder: Path) -> None:
    """Link reports/latest/<task> to this report, atomically."""
    link = home() / "reports" / "latest" / task_name
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{task_name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(folder, link.parent))
    temporary.replace(link)


def _verdict(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    evaluated: EvaluationManifest,
    refitted: RefitManifest | None,
    registered: RegisteredManifest,
    run: RunManifest,
    seed: int,
) -> Verdict:
    evaluation = evaluated.evaluation
    of_teacher = conclude(evaluation.gain_over_twin, evaluation.gain_over_unprivileged)
    conclusion = f"{conclude_floor(evaluation.floor)}; {of_teacher}"
    floor = floor_sentence(evaluation.chosen, evaluation.floor)
    gains = gains_sentence(evaluation.gains, test_start=features.test.start_utc, test_end=features.test.end_utc)
    return Verdict(
        task=features.task,
        conclusion=conclusion,
        sentence=f"{features.task}: {conclusion}. {floor} {gains} {_registration(refitted, registered)}",
        unit=features.unit,
        evaluation=evaluation,
        quality=_quality(readings, validated, features),
        registered=Registered(
            name=registered.name,
            version=registered.version,
            alias=CHAMPION if CHAMPION in registered.aliases else CHALLENGER,
            source=registered.source,
        ),
        refit=Refit(until_utc=refitted.end_utc, windows=refitted.windows, epochs=refitted.epochs) if refitted else None,
        parts={"train": features.train, "validation": features.validation, "test": features.test},
        history=features.history_sentence,
        data_digest=features.digest,
        mlflow_run_id=run.run_id,
        seed=seed,
    )


def _registration(refitted: RefitManifest | None, registered: RegisteredManifest) -> str:
    """The registered network and its aliases, as a sentence."""
    again = f"refit on all data until {refitted.end_utc:%Y-%m-%d %H:%M} UTC and " if refitted else ""
    return (
        f"Chosen on held-out blocks, the {registered.source.label} was {again}registered as "
        f"version {registered.version}, {' and '.join(registered.aliases)}."
    )


def _quality(readings: ReadingsManifest, validated: ValidatedManifest, features: FeaturesManifest) -> QualityCounts:
    return QualityCounts(
        readings=readings.rows,
        filled_rows=validated.count("repeated"),
        frozen_rows=validated.count("frozen"),
        missing_rows=validated.count("missing_row"),
        missing_values=validated.count("missing_value"),
        out_of_range_values=validated.count("out_of_range"),
        duplicate_rows=validated.count("duplicate_time"),
        off_grid_rows=validated.count("off_grid_time"),
        unreadable_rows=validated.count("unreadable_time"),
        steps=features.steps,
        null_steps=features.null_steps,
    )
