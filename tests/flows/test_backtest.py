import datetime as dt
import threading
import time
from pathlib import Path

import mlflow
import polars as pl
import psutil
import pytest
from mlflow.entities import Run
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

import flows.pieces
from flows.backtest import backtest
from runtime.paths import datasets_folder, home
from schemas.backtest import BacktestManifest, BacktestParameters
from tests.flows.power import cut_at
from tests.flows.test_retrain import SMALL
from tests.household import write_slice
from tutelage.errors import GapsError

pytestmark = pytest.mark.usefixtures("prefect_server")


def asked(dataset: str) -> BacktestParameters:
    return BacktestParameters(
        dataset=dataset,
        horizon_hours=1,
        lookback_hours=24,
        history_days=20,
        origins=2,
        period_days=8,
        recipe=SMALL,
        device="cpu",
    )


def runs(stage: str, *, of: str = "backtest-slice") -> list[Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(f"{of}-1h-backtest")
    return list(client.search_runs([experiment.experiment_id], f"tags.`tutelage.stage` = '{stage}'"))


@pytest.fixture(scope="module")
def cut_off(prefect_server: None) -> str:
    """A dataset whose backtest was cut off at its second origin."""
    name = write_slice(datasets_folder(), name="backtest-slice", days=40)
    with cut_at(flows.pieces, "train_and_evaluate", call=2):
        backtest(asked(name))
    return name


@pytest.fixture(scope="module")
def done(cut_off: str) -> BacktestManifest:
    return backtest(asked(cut_off))


def test_backtest__goes_on_where_it_was_cut_off(done: BacktestManifest) -> None:
    assert [run.info.status for run in runs("retrain")] == ["FINISHED", "FINISHED"]
    [whole] = runs("backtest")
    assert (whole.info.run_id, whole.info.status) == (done.run_id, "FINISHED")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs("retrain")} == {done.run_id}


def test_backtest__evaluates_each_period_with_what_was_known_at_its_origin(done: BacktestManifest) -> None:
    table = pl.read_csv(done.folder / "backtest.csv", try_parse_dates=True)
    ends = [dt.datetime(2010, 7, day, 23, tzinfo=dt.UTC) for day in (22, 30)]
    assert table["end_utc"].dt.replace_time_zone("UTC").to_list() == ends
    assert {"student_crps", "twin_crps", "teacher_crps", "seasonal_naive_24h_crps"} <= set(table.columns)
    [early] = [run for run in runs("retrain") if "2010-07-22" in run.data.params["as_of"]]
    assert early.data.metrics["student.crps"] == pytest.approx(table["student_crps"][0])


def test_backtest__table_and_plot_are_in_mlflow(done: BacktestManifest, tmp_path: Path) -> None:
    folder = mlflow.artifacts.download_artifacts(run_id=done.run_id, artifact_path="backtest", dst_path=str(tmp_path))
    assert sorted(file.name for file in Path(folder).iterdir()) == ["backtest.csv", "backtest.png"]
    metrics = mlflow.get_run(done.run_id).data.metrics
    assert metrics["gain_over_twin.estimate"] == pytest.approx(done.gain_over_twin)
    assert metrics["gain_over_unprivileged.estimate"] == pytest.approx(done.gain_over_unprivileged)


def test_backtest__a_second_time_trains_nothing(done: BacktestManifest, cut_off: str) -> None:
    before = {run.info.run_id: run.info.end_time for run in runs("retrain")}
    again = backtest(asked(cut_off))
    assert {run.info.run_id: run.info.end_time for run in runs("retrain")} == before
    assert (again.gain_over_twin, again.origins) == (done.gain_over_twin, done.origins)


def table_of(done: BacktestManifest) -> pl.DataFrame:
    return pl.read_csv(done.folder / "backtest.csv")


def kill_a_worker(killed: list[int]) -> None:
    """Kill the first process that works on an origin once its teachers train."""
    deadline = time.monotonic() + 240
    before = set(home().glob("checkpoints/*"))
    while not killed and time.monotonic() < deadline:
        if set(home().glob("checkpoints/*")) - before:
            for process in psutil.process_iter(["cmdline"]):
                if not killed and " ".join(process.info["cmdline"] or ()).startswith("ray::origin"):
                    process.kill()
                    killed.append(process.pid)
        time.sleep(0.05)


@pytest.mark.slow
def test_backtest__on_a_cluster_has_the_figures_of_one_process(done: BacktestManifest) -> None:
    name = write_slice(datasets_folder(), name="ray-slice", days=40)
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(killed,))
    killer.start()
    there = backtest(asked(name).model_copy(update={"engine": "ray"}))
    killer.join()
    assert len(killed) == 1
    assert table_of(there).equals(table_of(done)), "to the last digit, though a worker was killed"
    assert (there.gain_over_twin, there.origins) == (done.gain_over_twin, 2)

    every = runs("retrain", of="ray-slice") + runs("backtest", of="ray-slice")
    assert [run.info.status for run in every] == ["FINISHED"] * 3, "the killed origin went on in its run"
    backtest(asked(name))
    assert len(runs("retrain", of="ray-slice")) == 2, "where it runs changes nothing: both are evaluated already"


@pytest.fixture(scope="module")
def gaps(prefect_server: None) -> str:
    """A dataset without 42 hours of the first origin's validation part, 10 to 14 July, whose gaps stay gaps."""
    name = write_slice(datasets_folder(), name="gaps-slice", days=50)
    file = datasets_folder() / f"{name}.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not "2010-07-11 12" <= line[:13] < "2010-07-13 06"))
    spec = datasets_folder() / f"{name}.yaml"
    spec.write_text(spec.read_text(encoding="utf-8") + "serving: {missing_hours: refuse}\n", encoding="utf-8")
    return name


def test_backtest__leaves_out_an_origin_whose_history_has_too_many_gaps(gaps: str) -> None:
    done = backtest(asked(gaps))
    assert (done.origins, done.left_out) == (1, 1)
    with get_client(sync_client=True) as prefect:
        [artifact] = prefect.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["backtest-gaps-slice-1h"]))
        )
    assert "; the period up to 2010-07-22 is left out: the validation part, 2010-07-10 23:00 to" in artifact.description


def test_backtest__refuses_where_no_origin_can_be_evaluated(gaps: str) -> None:
    alone = asked(gaps).model_copy(update={"origins": 1, "as_of": dt.datetime(2010, 7, 22, 23, tzinfo=dt.UTC)})
    with pytest.raises(GapsError, match="no origin has a history that can be learnt from; at the last one the valid"):
        backtest(alone)


def test_backtest__registers_nothing(done: BacktestManifest) -> None:
    assert mlflow.MlflowClient().search_model_versions("name = 'backtest-slice-1h'") == []
