"""What an ablation says: a table by privilege, one by history, a plot, and a page that explains them."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect.artifacts import create_markdown_artifact

from runtime.paths import home
from runtime.registry import client
from runtime.runs import log_metrics
from runtime.stage import stage
from schemas.ablation import Ablation, AblationManifest, AblationParameters
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.grid import DAY
from tutelage.errors import GapsError
from tutelage.files import folder_written_whole, write_json
from tutelage.forecasts import Contender
from tutelage.judge.ablation import (
    PLACEBO,
    DaysNeeded,
    Privilege,
    WithoutRow,
    days_needed,
    kept_values_a_day,
    rows_by_history,
    rows_without,
)
from tutelage.judge.comparison import Gain, Losses, gain_between
from tutelage.judge.plots import plot_ablation
from tutelage.judge.verdict import interval_text, percent

WHOLE = "whole recipe"
"""The variant that all others are compared with."""
RESULT, PLOT, PAGE = "ablation.json", "ablation.png", "ablation.html"
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    autoescape=lambda name: bool(name and name.endswith(".html")),
    trim_blocks=True,
)


@stage("summarise ablation", run_name="summarise {features.task}")
def summarise_ablation(
    tried: dict[str, Losses | str],
    days: Sequence[int],
    features: FeaturesManifest,
    spec: DatasetSpec,
    parameters: AblationParameters,
    run: RunManifest,
) -> AblationManifest:
    """Compare all variants with the whole recipe; write tables, plot and page, and publish them.

    tried: by variant its losses, or why it was left out; days: the shorter histories, whose variants are `50 days`

    Raises GapsError where the whole recipe was left out.
    """
    result = _result(tried, days, features, spec, parameters, run)
    to_keep = {row.name: keeping(row.name, spec, parameters) for row in result.without}
    folder = home() / "ablations" / features.task / run.run_id
    with folder_written_whole(folder) as part:
        write_json(part / RESULT, result.model_dump(mode="json"))
        plot_ablation(result.without, result.history, unit=features.unit, title=features.task).savefig(part / PLOT)
        image = "data:image/png;base64," + base64.b64encode((part / PLOT).read_bytes()).decode()
        values = {
            "result": result,
            "image": image,
            "to_keep": to_keep,
            "shown": shown_gain,
            "percent": percent,
            "interval": interval_text,
        }
        (part / PAGE).write_text(TEMPLATES.get_template("ablation.html").render(**values), encoding="utf-8")
    client().log_artifacts(run.run_id, str(folder), "ablation")
    log_metrics(run.run_id, {f"gain_from_{row.name}.estimate": row.student_gain.estimate for row in result.without})
    text = TEMPLATES.get_template("ablation.md").render(**values)
    create_markdown_artifact(text, key=f"ablation-{features.task}", description=result.sentence)
    return AblationManifest(folder=folder, result=result)


def _result(
    tried: dict[str, Losses | str],
    days: Sequence[int],
    features: FeaturesManifest,
    spec: DatasetSpec,
    parameters: AblationParameters,
    run: RunManifest,
) -> Ablation:
    left_out = {name: reason for name, reason in tried.items() if isinstance(reason, str)}
    losses = {name: each for name, each in tried.items() if not isinstance(each, str)}
    if WHOLE in left_out:
        raise GapsError(left_out[WHOLE])
    whole = losses[WHOLE]
    by_days = {each: losses[f"{each} days"] for each in days if f"{each} days" in losses}
    lacking = {name: losses[name] for name in (*Privilege, PLACEBO) if name in losses}
    rows = rows_without(whole, lacking)
    history = rows_by_history(by_days | {features.history_days: whole}) if by_days else []
    needed = days_needed(history) if history else None
    together = None
    if Contender.UNPRIVILEGED in whole.by_contender:
        together = gain_between((whole, Contender.STUDENT), (whole, Contender.UNPRIVILEGED))
    said = [f"{features.task}:", privileges_sentence(rows, together), history_sentence(needed, features.history_days)]
    return Ablation(
        task=features.task,
        sentence=" ".join(filter(None, said)),
        unit=features.unit,
        test_start_utc=features.test.start_utc,
        test_end_utc=features.test.end_utc,
        history_days=features.history_days,
        replicates=parameters.replicates,
        student_crps=whole.mean(Contender.STUDENT),
        twin_crps=whole.mean(Contender.TWIN),
        teacher_crps=whole.mean(Contender.TEACHER),
        unprivileged_crps=whole.mean(Contender.UNPRIVILEGED) if Contender.UNPRIVILEGED in whole.by_contender else None,
        gain_over_unprivileged=together,
        without=rows,
        kept_values_a_day={row.name: kept_values_a_day(row.name, spec) for row in rows},
        history=history,
        days_needed=needed,
        left_out=left_out,
        mlflow_run_id=run.run_id,
    )


def shown_gain(gain: Gain) -> str:
    """A gain with its interval: `1.1 % (−0.1 … 2.3 %)`."""
    return f"{percent(gain.estimate)} % ({interval_text(gain.low, gain.high)})"


def privileges_sentence(rows: Sequence[WithoutRow], together: Gain | None) -> str:
    """What the privileges brought the students, each and together; the placebo is left to the table."""
    had = [row for row in rows if row.name != PLACEBO]
    if not had:
        return "the teachers have nothing that could be left out."
    each = ", ".join(f"{row.label} {shown_gain(row.student_gain)}" for row in had)
    words = [f"{row.label} did harm" for row in had if row.is_harm]
    words = [f"{row.label} brought a gain" for row in had if row.is_gain] + words
    of_all = f" All together: {shown_gain(together)}." if together is not None else ""
    beyond = " and ".join(words) or "none of these is beyond luck"
    return f"each privilege lowered the students' CRPS by (95 % CI): {each}; {beyond}.{of_all}"


def history_sentence(needed: DaysNeeded | None, whole: int) -> str:
    """How many days of history the teachers save."""
    if needed is None:
        return ""
    if needed.student is None:
        return f"With all {whole} days the students are not as good as their twins, so no day of history is saved."
    saved = needed.saved or 0
    what = f"{saved} days saved" if saved > 0 else "none is saved" if saved == 0 else f"{-saved} days more, not fewer"
    return (
        f"To be as good as twins with {whole} days, students need {needed.student} days of history and twins "
        f"{needed.twin}: {what}."
    )


def keeping(name: str, spec: DatasetSpec, parameters: AblationParameters) -> str:
    """What a privilege costs to keep, in words."""
    values, usual, columns = kept_values_a_day(name, spec), DAY // spec.student_step, spec.names(Role.PRIVILEGED)
    return {
        Privilege.FUTURE: "nothing: it is the same readings, later",
        Privilege.MINUTES: f"{values} readings a day and series of {spec.target}, in place of {usual}",
        Privilege.AUXILIARY: f"{len(columns)} columns ({', '.join(columns)}): {values} values a day and series",
        Privilege.OTHER_SITES: f"the readings of {parameters.recipe.teacher.other_sites}",
        Privilege.PRETRAINED: "nothing: it comes as it is",
        PLACEBO: "",
    }[name]
