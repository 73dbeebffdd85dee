"""A backtest's MLflow run, and its last stage: the figures of all origins as one table and one plot."""

import base64
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from schemas.manifests import BacktestManifest, RunManifest
from schemas.parameters import BacktestParameters
from tasks.caching import is_transient
from tasks.home import home
from tasks.tracking import (
    client,
    continued_run,
    describe_run,
    experiment,
    log_figures,
    opened_alone,
    work_key,
)
from tutelage.backtest import backtest_table, forecasts_of, overall_gain, rivals_of
from tutelage.dataset import DatasetSpec
from tutelage.files import folder_written_whole
from tutelage.plots import plot_backtest


@task(
    name="open backtest", task_run_name="run {parameters.task}", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2
)
def open_backtest(key: str, parameters: BacktestParameters, spec: DatasetSpec, commit: str) -> RunManifest:
    """Continue this backtest's unfinished MLflow run, or start one, in an experiment of backtests."""
    experiment_id, name = experiment(f"{parameters.task}-backtest"), f"backtest seed {parameters.seed}"
    run_id = continued_run(experiment_id, key, stage="backtest", name=name, commit=commit)
    describe_run(run_id, parameters, spec)
    return RunManifest(key=key, experiment_id=experiment_id, run_id=run_id, children={})


@contextmanager
def tracked_backtest(
    parameters: BacktestParameters, spec: DatasetSpec, files: list[Path], commit: str
) -> Iterator[RunManifest]:
    """One backtest's MLflow run, as of `opened_alone`; its origins' runs go within it."""
    key = work_key(parameters, spec, files)
    with opened_alone(key, lambda: open_backtest(key, parameters, spec, commit)) as run:
        yield run


@task(
    name="summarise backtest",
    task_run_name="summarise {parameters.dataset}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def summarise_backtest(
    figures: dict[dt.datetime, dict[str, float]],
    left_out: dict[dt.datetime, str],
    spec: DatasetSpec,
    parameters: BacktestParameters,
    run: RunManifest,
) -> BacktestManifest:
    """Write `backtest.csv` and `backtest.png`, and publish both.

    figures: the end of a stretch → its metrics by name; left_out: the end of a stretch → why it couldn't be judged
    """
    table = backtest_table(figures, stretch_days=parameters.stretch_days)
    gains = {rival: overall_gain(table, rival) for rival in rivals_of(table)}
    won = {rival: int((table[f"gain_vs_{rival}_estimate"] > 0).sum()) for rival in gains}
    sentence = (
        f"{parameters.task}: over {table.height} stretches of {parameters.stretch_days} days the student has "
        f"{gains['twin']:+.1%} CRPS against its twin; it was better in {won['twin']} of {table.height}"
    )
    if "no_privilege" in gains:
        sentence += (
            f"; against students of teachers without privilege it has {gains['no_privilege']:+.1%}, "
            f"better in {won['no_privilege']}"
        )
    for end, reason in left_out.items():
        sentence += f"; the stretch up to {end:%Y-%m-%d} is left out: {reason}"
    folder = home() / "backtests" / parameters.task / run.run_id
    with folder_written_whole(folder) as part:
        table.write_csv(part / "backtest.csv")
        figure = plot_backtest(
            table["origin_utc"].to_list(),
            # The chosen one is one of the students or of the twins: a line upon theirs.
            {name: table[f"{name}_crps"].to_list() for name in forecasts_of(table) if name != "chosen"},
            {
                rival: {name: table[f"gain_vs_{rival}_{name}"].to_list() for name in ("estimate", "low", "high")}
                for rival in gains
            },
            unit=spec.target_column.unit,
            title=f"{parameters.task}: retrained at {table.height} origins",
        )
        figure.savefig(part / "backtest.png")
    client().log_artifacts(run.run_id, str(folder), "backtest")
    log_figures(run.run_id, {f"gain_vs_{rival}.estimate": gain for rival, gain in gains.items()})
    log_figures(run.run_id, {"origins_with_gain": float(won["twin"])})
    _publish(parameters.task, sentence, table.rows(named=True), (folder / "backtest.png").read_bytes())
    return BacktestManifest(
        folder=folder,
        run_id=run.run_id,
        origins=table.height,
        left_out=len(left_out),
        gain_vs_twin=gains["twin"],
        gain_vs_no_privilege=gains.get("no_privilege"),
        origins_with_gain=won["twin"],
    )


def _publish(name: str, sentence: str, rows: list[dict[str, object]], plot: bytes) -> None:
    shown = [{k: f"{v:%Y-%m-%d}" if isinstance(v, dt.datetime) else f"{v:.4f}" for k, v in row.items()} for row in rows]
    create_table_artifact(shown, key=f"backtest-{name}", description=sentence)
    image = base64.b64encode(plot).decode()
    text = f"# {name}\n\n{sentence}.\n\n![CRPS and gain by origin](data:image/png;base64,{image})\n"
    create_markdown_artifact(text, key=f"backtest-plot-{name}", description=sentence)
