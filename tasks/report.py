"""Stage 9: the verdict, as JSON, as a page and as a Prefect artifact."""

import base64
import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from schemas.manifests import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RegisteredManifest,
    RunManifest,
    ValidatedManifest,
)
from schemas.verdict import Refit, Registered, Verdict
from tasks.caching import is_transient
from tasks.home import home
from tasks.tracking import client, log_figures
from tutelage.comparison import worth_of
from tutelage.files import folder_written_whole, write_json

PLOTS = {
    "forecast": "One week of the test part",
    "skill": "Skill by lead time",
    "reliability": "Reliability",
    "losses": "Training",
}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    autoescape=lambda name: bool(name and name.endswith(".html")),
    trim_blocks=True,
)


@task(
    name="report",
    task_run_name="report {features.task}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def report(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    evaluation: EvaluationManifest,
    refitted: RefitManifest | None,
    registered: RegisteredManifest,
    run: RunManifest,
    *,
    seed: int,
) -> Verdict:
    """Write the report's folder, point `latest` at it, and publish the same to Prefect and MLflow."""
    verdict = _verdict(readings, validated, features, evaluation, refitted, registered, run, seed)
    images = {
        name: "data:image/png;base64," + base64.b64encode((evaluation.folder / f"{name}.png").read_bytes()).decode()
        for name in PLOTS
    }
    values = {"verdict": verdict, "features": features, "rules": validated.rules, "registered": registered}
    folder = home() / "reports" / run.run_id
    with folder_written_whole(folder) as part:
        write_json(part / "verdict.json", verdict.model_dump(mode="json"))
        page = TEMPLATES.get_template("report.html").render(**values, images=images, captions=PLOTS)
        (part / "report.html").write_text(page, encoding="utf-8")
    _point_latest(features.task, folder)
    client().log_artifacts(run.run_id, str(folder))
    counts = {f"quality.{rule.rule}.rows": float(validated.count(rule.rule)) for rule in validated.rules}
    log_figures(run.run_id, counts)  # only now: the compare page draws a run's first metric
    key = f"verdict-{features.task}"
    text = TEMPLATES.get_template("verdict.md").render(**values, images=images, captions=PLOTS)
    create_markdown_artifact(text, key=key, description=verdict.sentence)
    return verdict


def _point_latest(task_name: str, folder: Path) -> None:
    """Make reports/latest/<task> a link to the newest report, in one step."""
    link = home() / "reports" / "latest" / task_name
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{task_name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(folder, link.parent))
    fresh.replace(link)


def _verdict(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    evaluation: EvaluationManifest,
    refitted: RefitManifest | None,
    registered: RegisteredManifest,
    run: RunManifest,
    seed: int,
) -> Verdict:
    return Verdict(
        task=features.task,
        sentence=_sentence(features, evaluation, refitted, registered),
        unit=features.unit,
        n_train_windows=features.train.windows,
        n_validation_windows=features.validation.windows,
        n_test_windows=features.test.windows,
        metrics=evaluation.metrics,
        validation_crps=evaluation.validation_crps,
        gain_vs_twin_crps=evaluation.gain_vs_twin,
        gain_vs_no_privilege_crps=evaluation.gain_vs_no_privilege,
        gain_by_pair_crps=evaluation.gain_by_pair,
        gate_by_hour=evaluation.gate_by_hour,
        gain_vs_champion_crps=evaluation.gain_vs_champion,
        quality={
            "readings": readings.rows,
            "filled_rows": validated.count("repeated"),
            "frozen_rows": validated.count("frozen"),
            "missing_rows": validated.count("missing_row"),
            "missing_values": validated.count("missing_value"),
            "out_of_range_values": validated.count("out_of_range"),
            "duplicate_rows": validated.count("duplicate_time"),
            "off_grid_rows": validated.count("off_grid_time"),
            "unreadable_rows": validated.count("unreadable_time"),
            "hours": features.hours,
            "null_hours": features.null_hours,
        },
        leak_guard=evaluation.leak_guard,
        registered=Registered(
            name=registered.name,
            version=registered.version,
            alias="champion" if "champion" in registered.aliases else "challenger",
            model=registered.source,
        ),
        refit=Refit(until_utc=refitted.end_utc, windows=refitted.windows, epochs=refitted.epochs) if refitted else None,
        parts_utc={
            name: [part.start_utc, part.end_utc]
            for name, part in (
                ("train", features.train),
                ("validation", features.validation),
                ("test", features.test),
            )
        },
        data_digest=features.digest,
        mlflow_run_id=run.run_id,
        seed=seed,
    )


def _sentence(
    features: FeaturesManifest,
    evaluation: EvaluationManifest,
    refitted: RefitManifest | None,
    registered: RegisteredManifest,
) -> str:
    """Were the privileged data worth it? In one sentence, with the intervals.

    Students against twins tell what a teacher brought, privileged or not; against the control's students, what the
    privilege did. The second question is one only where the first has an answer.
    """
    gain, by_pair = evaluation.gain_vs_twin, evaluation.gain_by_pair
    beyond = evaluation.gain_vs_no_privilege
    figures = f"the student has {gain['estimate']:+.1%} CRPS against its twin ({_interval(gain)})"
    if len(by_pair) > 1:
        figures = (
            f"{len(by_pair)} students have {gain['estimate']:+.1%} CRPS against their twins ({_interval(gain)}; "
            f"by pair {min(by_pair):+.1%} to {max(by_pair):+.1%})"
        )
    if beyond is not None:
        figures += (
            f" and {beyond['estimate']:+.1%} against students of teachers without privilege ({_interval(beyond)})"
        )
    worth = worth_of(gain, beyond)
    again = f"refit on all until {refitted.end_utc:%Y-%m-%d %H:%M} UTC and " if refitted else ""
    return (
        f"{features.task}: {worth}: {figures}; by the validation part the {registered.source} was {again}registered, "
        f"version {registered.version}, as {' and '.join(registered.aliases)}."
    )


def _interval(gain: dict[str, float]) -> str:
    return f"95 % interval {gain['low']:+.1%} to {gain['high']:+.1%}"
