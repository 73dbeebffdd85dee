"""Study, last stage: choose, and show all trials in the order of their CRPS, to Prefect and to MLflow."""

import csv
from pathlib import Path

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from schemas.manifests import RunManifest
from schemas.study import FoldScores, LeaderboardRow, StudyResult
from tasks.caching import is_transient
from tasks.home import home
from tasks.tracking import client, log_figures
from tasks.trials import result_of
from tutelage.choice import Choice, Result, Rule, choose_recipe
from tutelage.files import folder_written_whole, write_json
from tutelage.study import Trial

FIGURES = ("crps_teacher", "gain_vs_twin_se", "gain_vs_twin_worst", "gain_vs_best_twin")
"""What is logged at the end; the means over folds are there already (`tasks.trials.log_fold`)."""


@task(
    name="leaderboard",
    task_run_name="leaderboard {task_name}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def publish_study(
    task_name: str, unit: str, scores: list[FoldScores], trials: list[Trial], run: RunManifest, *, rule: Rule
) -> StudyResult:
    """Choose a recipe by the rule; log each trial's figures, and the leaderboard as table, CSV, markdown and JSON."""
    results = {trial.name: result_of(trial, scores) for trial in trials}
    choice = choose_recipe(list(results.values()), rule)
    rows = _rows(trials, results, scores, choice)
    chosen = next(trial for trial in trials if trial.name == choice.chosen.name)
    result = StudyResult(
        task=task_name,
        sentence=_sentence(task_name, unit, choice, len(scores), len(trials), rule),
        unit=unit,
        rule=rule,
        chosen=chosen.name,
        best=choice.best.name,
        within_one_standard_error=list(choice.within),
        recipe=chosen.recipe.model_copy(update={"few_alpha": None}),
        averaged_teachers=list(chosen.teachers) if chosen.kind == "average" else [],
        folds=[each.fold for each in scores],
        leaderboard=rows,
        mlflow_run_id=run.run_id,
    )
    for row in rows:
        child = run.children[row.trial]
        figures = {name: getattr(row, name) for name in FIGURES}
        log_figures(child, {name: value for name, value in figures.items() if value is not None})
        client().set_tag(child, "choice", row.choice)
    client().set_tag(run.run_id, "chosen", chosen.name)
    client().set_tag(run.run_id, "mlflow.note.content", result.sentence)
    _write(result, home() / "studies" / run.run_id)
    client().log_artifacts(run.run_id, str(home() / "studies" / run.run_id))
    create_table_artifact(_shown(rows, unit), key=f"study-{task_name}", description=result.sentence)
    return result


def _rows(
    trials: list[Trial], results: dict[str, Result], scores: list[FoldScores], choice: Choice
) -> list[LeaderboardRow]:
    """One row a trial, the lowest CRPS first."""
    best_twin = min(result.mean_crps for result in results.values() if result.kind == "twin")
    by_name = {trial.name: trial for trial in trials}
    ordered = sorted(results.values(), key=lambda result: result.mean_crps)
    return [
        LeaderboardRow(
            place=place,
            trial=result.name,
            kind=result.kind,
            choice=_choice(result, choice),
            crps_student=result.mean_crps,
            crps_twin=result.mean_twin_crps,
            crps_teacher=_teacher_crps(result.name, scores),
            gain_vs_twin=result.gain,
            gain_vs_twin_se=result.gain_standard_error,
            gain_vs_twin_worst=min(result.gain_by_fold),
            gain_vs_best_twin=1 - result.mean_crps / best_twin,
            **_settings(by_name[result.name]),
        )
        for place, result in enumerate(ordered, start=1)
    ]


def _settings(trial: Trial) -> dict[str, object]:
    names = ("alpha", "temperature", "future_sigma", "minutes_hours", "auxiliary")
    found = {name: trial.settings.get(name) for name in (*names, "dropout", "learning_rate", "weight_decay")}
    # An empty cell says that there is no teacher to have the setting; this one has it, and does not see the future.
    return found | ({"future_sigma": "none"} if trial.settings.get("future_sigma", 0) is None else {})


def _choice(result: Result, choice: Choice) -> str:
    if result.name == choice.chosen.name:
        return "chosen"
    return "within one standard error" if result.name in choice.within else ""


def _teacher_crps(name: str, scores: list[FoldScores]) -> float | None:
    found = [fold.teacher_crps[name] for fold in scores if name in fold.teacher_crps]
    return sum(found) / len(found) if found else None


def _sentence(task_name: str, unit: str, choice: Choice, folds: int, trials: int, rule: Rule) -> str:
    chosen, best = choice.chosen, choice.best
    text = f"{task_name}, {trials} trials on {folds} folds: chosen is {chosen.name}, CRPS {chosen.mean_crps:.4f} {unit}"
    if chosen.kind != "twin":
        text += f", {chosen.gain:+.1%} against its twin (standard error {chosen.gain_standard_error:.1%})"
    if chosen.name != best.name:
        text += f"; the lowest has {best.name}, {best.mean_crps:.4f} {unit}, not clearly better"
    return text + f" (rule: {rule})."


def _write(result: StudyResult, folder: Path) -> None:
    """The leaderboard as CSV and markdown, and all of the result as JSON."""
    shown = _shown(result.leaderboard, result.unit)
    heads = list(shown[0])
    lines = [" | ".join(heads), " | ".join("---" for _ in heads), *(" | ".join(map(str, r.values())) for r in shown)]
    with folder_written_whole(folder) as part:
        write_json(part / "study.json", result.model_dump(mode="json"))
        table = "\n".join(f"| {line} |" for line in lines)
        (part / "leaderboard.md").write_text(f"{result.sentence}\n\n{table}\n", encoding="utf-8")
        with (part / "leaderboard.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(LeaderboardRow.model_fields))
            writer.writeheader()
            writer.writerows(row.model_dump() for row in result.leaderboard)


def _shown(rows: list[LeaderboardRow], unit: str) -> list[dict[str, object]]:
    """The leaderboard as a person reads it."""
    return [
        {
            "place": row.place,
            "trial": row.trial,
            "choice": row.choice,
            f"CRPS [{unit}]": f"{row.crps_student:.4f}",
            "twin's CRPS": f"{row.crps_twin:.4f}",
            "teacher's CRPS": "" if row.crps_teacher is None else f"{row.crps_teacher:.4f}",
            "gain over its twin": "" if row.kind == "twin" else f"{row.gain_vs_twin:+.1%} ± {row.gain_vs_twin_se:.1%}",
            "worst fold": "" if row.kind == "twin" else f"{row.gain_vs_twin_worst:+.1%}",
            "over the best twin": f"{row.gain_vs_best_twin:+.1%}",
        }
        for row in rows
    ]
