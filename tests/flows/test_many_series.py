"""A fleet of meters of all sizes, on a clock whose hours begin at half past in UTC, from files to forecasts."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from flows.forecast import forecast
from flows.retrain import retrain
from flows.rollback import rollback
from runtime.artifacts import BY_SERIES
from runtime.paths import datasets_folder, home, run_folder
from schemas.forecast import ForecastParameters
from schemas.promotion import RollbackParameters
from schemas.retrain import RetrainParameters
from schemas.verdict import Verdict
from tests.flows.test_retrain import SMALL, small
from tutelage.data.dataset import load_dataset_spec
from tutelage.distil.pipeline import read_dataset
from tutelage.forecasts import Contender, crps
from tutelage.judge.baselines import forecast_baselines
from tutelage.judge.verdict import actual_values

pytestmark = pytest.mark.usefixtures("prefect_server")

START = dt.datetime(2024, 1, 1)
DAYS = 45
KILOWATTS = {"flat": 1.0, "works": 1000.0}
SIMPLE = (Contender.RIDGE, Contender.SEASONAL_NAIVE_24H)


def power_of(kilowatts: float, *, seed: int, days: int = DAYS) -> np.ndarray:
    """A day's course with a level that wanders."""
    noise, hour = np.random.default_rng(seed), np.arange(24 * days)
    level = np.repeat(noise.normal(0, 0.05, days).cumsum(), 24)
    return kilowatts * np.maximum(2 + level + np.sin(2 * np.pi * hour / 24) + noise.normal(0, 0.2, len(hour)), 0.1)


def write_fleet(folder: Path, name: str, meters: dict[str, np.ndarray]) -> str:
    """Write hourly meters as one file, with a spec beside it; return the dataset's name."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = [
        pl.DataFrame(
            {"t": [f"{START + dt.timedelta(hours=at):%Y-%m-%d %H:%M:%S}" for at in range(len(power))], "p": power}
        ).with_columns(meter=pl.lit(meter))
        for meter, power in meters.items()
    ]
    pl.concat(tables).write_csv(folder / f"{name}.csv")
    power = {"name": "power_kw", "source": "p", "role": "observed", "unit": "kW", "minimum": 0, "maximum": 9999}
    content = {
        "name": name,
        "description": "meters of all sizes",
        "source": {"path": str(folder / f"{name}.csv")},
        "timestamp": {"columns": ["t"], "timezone": "Asia/Kolkata"},
        "series_column": "meter",
        "target": "power_kw",
        "raw_step": "PT1H",
        "student_step": "PT1H",
        "columns": [power],
        "calendar": {"timezone": "Asia/Kolkata"},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return name


def every_meter() -> dict[str, np.ndarray]:
    return {name: power_of(kilowatts, seed=seed) for seed, (name, kilowatts) in enumerate(KILOWATTS.items())}


def relative_crps(name: str, tmp_path: Path, meters: dict[str, np.ndarray]) -> dict[Contender, float]:
    """The simple forecasts' CRPS of one meter, relative to its kW, where they are fitted on all of these meters."""
    spec = load_dataset_spec(tmp_path / f"{write_fleet(tmp_path, 'some', meters)}.yaml")
    dataset = read_dataset(spec, SMALL, horizon=24, lookback=48, history_days=None, test_days=10)
    mine = np.array(dataset.panel.names_at(dataset.test)) == (name if len(meters) > 1 else dataset.panel.names[0])
    actual, size = actual_values(dataset, dataset.test), dataset.panel.size_at(dataset.test)
    forecasts = forecast_baselines(dataset, dataset.test, SIMPLE)
    losses = {each: crps(made, actual).mean(axis=1) * size for each, made in forecasts.items()}
    return {each: float(values[mine].mean()) / KILOWATTS[name] for each, values in losses.items()}


@pytest.mark.parametrize("name", KILOWATTS)
def test_many_series__a_meter_is_forecast_as_well_as_alone(name: str, tmp_path: Path) -> None:
    together = relative_crps(name, tmp_path, every_meter())
    alone = relative_crps(name, tmp_path, {name: every_meter()[name]})
    for baseline in SIMPLE:
        assert together[baseline] == pytest.approx(alone[baseline], rel=0.1), baseline


@pytest.fixture(scope="module")
def parameters(prefect_server: None) -> RetrainParameters:
    write_fleet(datasets_folder(), "fleet", every_meter())
    recipe = SMALL.override({"teacher.more_views": (), "teacher.ensemble_size": 1})
    values = {"history_days": None, "test_days": 10, "replicates": 1, "unprivileged": False, "recipe": recipe}
    return small("fleet", horizon_hours=6, refit=True, **values)


@pytest.fixture(scope="module")
def verdict(parameters: RetrainParameters) -> Verdict:
    return retrain(parameters)


def test_retrain__names_the_worst_series_in_their_own_size(verdict: Verdict) -> None:
    worst = {each.series: each for each in verdict.evaluation.worst_series}
    assert set(worst) == set(KILOWATTS)
    for name, score in worst.items():
        assert 0.02 < score.floor_crps / KILOWATTS[name] < 0.5
    assert verdict.evaluation.worst_series[0].against_floor == max(each.against_floor for each in worst.values())
    scored = run_folder(verdict.mlflow_run_id, "evaluation") / BY_SERIES
    assert [row["series"] for row in json.loads(scored.read_text())] == list(worst)
    page = (home() / "reports" / "latest" / "fleet-6h" / "report.html").read_text()
    assert "<h2>Worst series</h2>" in page
    assert f"<tr><td>{verdict.evaluation.worst_series[0].series}</td>" in page


def test_forecast__gives_each_series_values_of_its_size(parameters: RetrainParameters, verdict: Verdict) -> None:
    rollback(RollbackParameters(name=verdict.task, version=1, by="ada", why="the tests need a champion"))
    issued = forecast(ForecastParameters(dataset="fleet", horizon_hours=6))
    stored = pl.read_parquet(issued.path)
    assert set(stored["time_utc"].dt.minute()) == {30}, "an hour of Kolkata's clock"
    medians = stored.group_by("series_id").agg(pl.col("q50").mean()).rows()
    ratios = {name: median / float(every_meter()[name][-48:].mean()) for name, median in medians}
    assert set(ratios) == set(KILOWATTS)
    assert all(0.3 < ratio < 3 for ratio in ratios.values()), ratios


def test_retrain__meets_a_champion_of_other_sizes(verdict: Verdict, parameters: RetrainParameters) -> None:
    """The champion was trained on sizes of its own; with more history the series' sizes differ."""
    later = retrain(parameters.model_copy(update={"history_days": 20, "refit": False}))
    assert later.evaluation.champion is not None
    assert Contender.CHAMPION in later.evaluation.scores
    assert later.evaluation.scores[Contender.CHAMPION].crps < 3 * later.evaluation.scores[Contender.RIDGE].crps
