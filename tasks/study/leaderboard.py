"""The choice among trials, and the leaderboard, published to Prefect and MLflow."""

import csv
from pathlib import Path

from prefect.artifacts import create_table_artifact

from runtime.paths import home
from runtime.registry import client
from runtime.runs import log_metrics
from runtime.stage import stage
from schemas.manifests import RunManifest
from schemas.study import FoldScores, LeaderboardRow, StudyResult
from tasks.study.run import result_of
from tutelage.files import folder_written_whole, write_json
from tutelage.judge.choice import Choice, Rule, TrialResult, choose_recipe
from tutelage.judge.trials import Trial
from tutelage.judge.verdict import percent

SUMMARY = ("crps_teacher", "gain_over_twin_se", "gain_over_twin_worst", "gain_over_best_twin")
"""Metrics to log at the end; the means over folds are already logged (`tasks.study.run.log_fold`)."""


@stage("leaderboard", run_name="leaderboard {task_name}")
def publish_study(
    task_name: str, unit: str, scores: list[FoldScores], trials: list[Trial], run: RunManifest, *, rule: Rule
) -> StudyResult:
    """Choose a recipe by the rule; publish each trial's summary and the leaderboard."""
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
        recipe=chosen.recipe.override({"distillation.small_data_alpha": None}),
        averaged_teachers=list(chosen.teachers) if chosen.kind == "average" else [],
        folds=[each.fold for each in scores],
        leaderboard=rows,
        mlflow_run_id=run.run_id,
    )
    for row in rows:
        child = run.children[row.trial]
        summary = {name: getattr(row, name) for name in SUMMARY}
        log_metrics(child, {name: value for name, value in summary.items() if value is not None})
        client().set_tag(child, "choice", row.choice)
    client().set_tag(run.run_id, "chosen", chosen.name)
    client().set_tag(run.run_id, "mlflow.note.content", result.sentence)
    _write(result, home() / "studies" / run.run_id)
    client().log_artifacts(run.run_id, str(home() / "studies" / run.run_id))
    create_table_artifact(_shown(rows, unit), key=f"study-{task_name}", description=result.sentence)
    return result


def _rows(
    trials: list[Trial], results: dict[str, TrialResult], scores: list[FoldScores], choice: Choice
) -> list[LeaderboardRow]:
    """One row per trial, the lowest CRPS first."""
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
            gain_over_twin=result.gain,
            gain_over_twin_se=result.gain_standard_error,
            gain_over_twin_worst=min(result.gain_by_fold),
            gain_over_best_twin=1 - result.mean_crps / best_twin,
            **_settings(by_name[result.name]),
        )
        for place, result in enumerate(ordered, start=1)
    ]


def _settings(trial: Trial) -> dict[str, object]:
    names = ("alpha", "temperature", "future_sigma", "minutes_hours", "auxiliary")
    settings = {name: trial.settings.get(name) for name in (*names, "dropout", "learning_rate", "weight_decay")}
    # An empty cell means that the trial has no single teacher; "none" means a teacher that does not see the future.
    return settings | ({"future_sigma": "none"} if trial.settings.get("future_sigma", 0) is None else {})


def _choice(result: TrialResult, choice: Choice) -> str:
    if result.name == choice.chosen.name:
        return "chosen"
    return "within one standard error" if result.name in choice.within else ""


def _teacher_crps(name: str, scores: list[FoldScores]) -> float | None:
    by_fold = [fold.teacher_crps[name] for fold in scores if name in fold.teacher_crps]
    return sum(by_fold) / len(by_fold) if by_fold else None


def _sentence(task_name: str, unit: str, choice: Choice, folds: int, trials: int, rule: Rule) -> str:
    chosen, best = choice.chosen, choice.best
    text = (
        f"{task_name}, {trials} trials on {folds} folds: {chosen.name} was chosen, CRPS {chosen.mean_crps:.4f} {unit}"
    )
    if chosen.kind != "twin":
        direction = "lower" if chosen.gain >= 0 else "higher"
        text += f", {percent(abs(chosen.gain))} % {direction} than its twin's "
        text += f"(standard error {percent(chosen.gain_standard_error)} %)"
    if chosen.name != best.name:
        text += f"; {best.name} has the lowest, {best.mean_crps:.4f} {unit}, but is not clearly better"
    return text + f" (rule: {rule})."


def _write(result: StudyResult, folder: Path) -> None:
    """Write the leaderboard as CSV and markdown, and the result as JSON."""
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
    """The leaderboard with readable headings and rounded figures."""
    return [
        {
            "place": row.place,
            "trial": row.trial,
            "choice": row.choice,
            f"CRPS [{unit}]": f"{row.crps_student:.4f}",
            "twin's CRPS": f"{row.crps_twin:.4f}",
            "teacher's CRPS": "" if row.crps_teacher is None else f"{row.crps_teacher:.4f}",
            "gain over its twin": ""
            if row.kind == "twin"
            else f"{row.gain_over_twin:+.1%} ± {row.gain_over_twin_se:.1%}",
            "worst fold": "" if row.kind == "twin" else f"{row.gain_over_twin_worst:+.1%}",
            "over the best twin": f"{row.gain_over_best_twin:+.1%}",
        }
        for row in rows
    ]
