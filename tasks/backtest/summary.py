"""The evaluations of all origins in one table and one plot."""

import base64
import csv
import datetime as dt

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from runtime.paths import home
from runtime.registry import client
from runtime.runs import log_metrics
from runtime.stage import stage
from schemas.backtest import BacktestManifest, BacktestParameters
from schemas.manifests import RunManifest
from schemas.retrain import Evaluation
from tutelage.data.dataset import DatasetSpec
from tutelage.files import folder_written_whole
from tutelage.forecasts import Contender
from tutelage.judge.backtest import (
    Overall,
    Period,
    backtest_rows,
    common_contenders,
    common_references,
    compare_overall,
    overall_floor,
)
from tutelage.judge.plots import plot_backtest
from tutelage.judge.verdict import percent

TABLE = "backtest.csv"
PLOT = "backtest.png"


@stage("summarise backtest", run_name="summarise {parameters.dataset}")
def summarise_backtest(
    evaluations: dict[dt.datetime, Evaluation],
    left_out: dict[dt.datetime, str],
    spec: DatasetSpec,
    parameters: BacktestParameters,
    run: RunManifest,
) -> BacktestManifest:
    """Write the table and the plot, and publish both.

    evaluations: by the end of the period; left_out: why a period was not evaluated, by the end of the period
    """
    periods = [_period(end, evaluation, parameters) for end, evaluation in sorted(evaluations.items())]
    rows, references = backtest_rows(periods), common_references(periods)
    floor, over = overall_floor(periods), {name: compare_overall(periods, name) for name in references}
    sentence = _sentence(parameters, len(periods), floor, [*over.values()], left_out)
    folder = home() / "backtests" / parameters.task / run.run_id
    with folder_written_whole(folder) as part:
        with (part / TABLE).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        figure = plot_backtest(
            [period.origin_utc for period in periods],
            # The chosen network is one of the students or twins; its line would cover theirs.
            {
                name: [period.crps[name] for period in periods]
                for name in common_contenders(periods)
                if name is not Contender.CHOSEN
            },
            {reference: [period.gains[reference] for period in periods] for reference in references},
            unit=spec.target_column.unit,
            title=f"{parameters.task}: retrained at {len(periods)} origins",
        )
        figure.savefig(part / PLOT)
    client().log_artifacts(run.run_id, str(folder), "backtest")
    gains = {f"gain_over_{name}.estimate": each.gain for name, each in ({"floor": floor} | over).items()}
    won = {"origins_ahead_of_floor": float(floor.won), "origins_with_gain": float(over[Contender.TWIN].won)}
    log_metrics(run.run_id, gains | won)
    _publish(parameters.task, sentence, rows, (folder / PLOT).read_bytes())
    return BacktestManifest(
        folder=folder,
        run_id=run.run_id,
        origins=len(periods),
        left_out=len(left_out),
        floor=floor.reference,
        gain_over_floor=floor.gain,
        origins_ahead_of_floor=floor.won,
        gain_over_twin=over[Contender.TWIN].gain,
        gain_over_unprivileged=over[Contender.UNPRIVILEGED].gain if Contender.UNPRIVILEGED in over else None,
        origins_with_gain=over[Contender.TWIN].won,
    )


def _period(end: dt.datetime, evaluation: Evaluation, parameters: BacktestParameters) -> Period:
    gains = {Contender.TWIN: evaluation.gain_over_twin}
    if evaluation.gain_over_unprivileged is not None:
        gains[Contender.UNPRIVILEGED] = evaluation.gain_over_unprivileged
    return Period(
        origin_utc=end - dt.timedelta(days=parameters.period_days),
        end_utc=end,
        crps={name: scores.crps for name, scores in evaluation.scores.items()},
        gains=gains,
    )


def _sentence(
    parameters: BacktestParameters,
    periods: int,
    floor: Overall,
    over: list[Overall],
    left_out: dict[dt.datetime, str],
) -> str:
    whose = {
        Contender.TWIN: "their twins'",
        Contender.UNPRIVILEGED: "that of students of unprivileged teachers",
        floor.reference: f"that of {floor.reference.label}, the best of the simple forecasts over all of them",
    }
    against_floor, *parts = (
        f"{percent(abs(each.gain))} % {'lower' if each.gain >= 0 else 'higher'} than {whose[each.reference]} "
        f"(lower in {each.won} of {periods})"
        for each in (floor, *over)
    )
    text = (
        f"{parameters.task}: over {periods} periods of {parameters.period_days} days, the CRPS of the chosen student "
        f"or twin is {against_floor}; the students' is {' and '.join(parts)}"
    )
    for end, reason in left_out.items():
        text += f"; the period up to {end:%Y-%m-%d} is left out: {reason}"
    return text


def _publish(name: str, sentence: str, rows: list[dict[str, dt.datetime | float]], plot: bytes) -> None:
    shown = [{k: f"{v:%Y-%m-%d}" if isinstance(v, dt.datetime) else f"{v:.4f}" for k, v in row.items()} for row in rows]
    create_table_artifact(shown, key=f"backtest-{name}", description=sentence)
    image = base64.b64encode(plot).decode()
    text = f"# {name}\n\n{sentence}.\n\n![CRPS and gain by origin](data:image/png;base64,{image})\n"
    create_markdown_artifact(text, key=f"backtest-plot-{name}", description=sentence)
