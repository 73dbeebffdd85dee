"""From raw readings to the registered model's forecast, with steps shorter and longer than an hour."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
import torch

from tasks.retrain.register import write_model
from tests.tutelage.builders import small_recipe
from tests.tutelage.data.builders import DAY, HOUR, START, meter, table_of
from tutelage.data.dataset import DatasetSpec
from tutelage.data.quality import clean
from tutelage.data.resample import readings_within, student_table
from tutelage.data.windows import make_panel, split
from tutelage.distil.base import fit_base, forecast_simple, forecast_with_base
from tutelage.distil.dataset import WindowDataset, fit_on, make_dataset, require_steps
from tutelage.distil.teachers import forecast_exported
from tutelage.distil.views import privileged_width
from tutelage.errors import SpecError, TutelageError
from tutelage.forecasts import Contender, crps
from tutelage.judge.baselines import forecast_baselines
from tutelage.judge.week import one_week
from tutelage.model.base import SIMPLE
from tutelage.model.export import export_student, student_card
from tutelage.model.inference import Student, forecast_readings, load_student
from tutelage.model.layers import first_weights
from tutelage.model.networks import Forecaster

WEIGHTS = {Contender.RIDGE: 0.2, Contender.BOOSTED: 0.2, Contender.SAME_HOUR_7D: 0.2, Contender.LAST_VALUE: 0.1}


@dataclass(frozen=True)
class Case:
    """A meter in steps of one length: its readings, its windows, and an untrained student with a base."""

    spec: DatasetSpec
    readings: pl.DataFrame
    dataset: WindowDataset
    folder: Path

    @property
    def student(self) -> Student:
        return load_student(self.folder)


def readings_of(spec: DatasetSpec, days: int) -> pl.DataFrame:
    """Power that follows the hour of the day and the day of the week, with noise; a quarter of an hour apart."""
    rows = days * DAY // spec.raw_step
    hours = np.arange(rows) * (spec.raw_step / HOUR)
    noise = np.random.default_rng(0).normal(0, 0.3, rows)
    power = 6 + 3 * np.sin(2 * np.pi * hours / 24) + 2 * (hours // 24 % 7 >= 5) + noise
    indoor = 20 + np.cos(2 * np.pi * hours / 24)
    return table_of(spec, power.tolist(), indoor_c=indoor.tolist(), voltage_v=[230.0] * rows)


@pytest.fixture(scope="module", params=[("PT15M", 60), ("PT6H", 120), ("P1D", 300)], ids=lambda param: param[0])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    step, days = request.param
    spec = meter(student_step=step, raw_step="PT15M", quality={}, calendar={"timezone": "UTC"})
    readings = readings_of(spec, days)
    cleaned = clean(readings, spec)
    table = student_table(cleaned, spec)
    panel = make_panel(table, readings_within(cleaned, table, spec), spec)
    test_days = days // 4
    end, grid = START + days * DAY, spec.grid
    parts = split(end, start=START, history_days=None, validation_share=0.2, test_days=test_days, grid=grid)
    assert all(grid.floor(part.start) == part.start for part in (parts.train, parts.validation, parts.test))
    lookback, horizon = spec.grid.steps(48), spec.grid.steps(24)
    dataset = make_dataset(panel, parts, fit_on(panel, parts.train, bins=8), lookback=lookback, horizon=horizon)
    with first_weights(0):
        network = Forecaster(dataset.student_config(small_recipe()), dataset.scalers, 1).eval()
    base = fit_base(dataset, WEIGHTS)
    folder = tmp_path_factory.mktemp("step") / "export"
    card = student_card(network, spec, trained_until=parts.test.start, base=base)
    export_student(network, dataset.bins, card, folder, base=base)
    [expected] = forecast_with_base(network, dataset, dataset.test[:40], base)
    np.testing.assert_allclose(
        forecast_exported(load_student(folder), dataset, dataset.test[:40]).quantiles, expected.quantiles, atol=1e-3
    )
    return Case(spec, readings, dataset, folder)


def test_card__hours_and_steps(case: Case) -> None:
    card, grid = case.student.card, case.spec.grid
    assert (card["horizon_hours"], card["complete_hours"], card["lookback_hours"]) == (24, 48, 28 * 24)
    assert case.student.grid == grid
    assert case.dataset.horizon_hours == 24
    assert case.dataset.horizon == grid.of_day


def test_forecast_readings__raw_readings_give_what_the_windows_give(case: Case) -> None:
    origins = case.dataset.test[[0, len(case.dataset.test) // 2, -1]]
    times = [case.spec.grid.time(int(step)) for step in case.dataset.panel.step[origins]]
    since = (case.readings["time_utc"] >= times[0] - 40 * DAY).to_numpy()
    by_readings = forecast_readings(case.student, case.readings.filter(since), case.spec, times)
    by_windows = forecast_exported(case.student, case.dataset, origins)
    np.testing.assert_allclose(by_readings.quantiles, by_windows.quantiles, rtol=1e-4, atol=1e-4)


def test_registered_model__is_the_cores_forecast(case: Case, tmp_path: Path) -> None:
    grid, card = case.spec.grid, case.student.card
    table = student_table(clean(case.readings, case.spec), case.spec)
    issued = case.dataset.panel.step[case.dataset.test[0]].item()
    rows = table.filter(pl.col("time_utc") < grid.time(issued)).tail(grid.steps(card["lookback_hours"]))
    example = rows.select("series_id", "time_utc", *card["observed"]).to_pandas()
    example["time_utc"] = example["time_utc"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    write_model(tmp_path / "model", case.folder, example)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    found = model.predict(example)
    expected = forecast_exported(case.student, case.dataset, case.dataset.test[:1])
    np.testing.assert_allclose(found["mean"], expected.mean[0], rtol=1e-5, atol=1e-5)
    assert found["lead_hours"].tolist() == [grid.hours * (lead + 1) for lead in range(grid.of_day)]
    assert found["time_utc"].tolist() == [grid.time(issued + lead) for lead in range(grid.of_day)]
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"must be \d+ minutes after the row before it"):
        model.predict(example.drop(index=[len(example) - 2]))


def test_simple_forecasts__know_day_and_week(case: Case) -> None:
    """The pattern repeats each day and each week: what knows both is far ahead of the last value."""
    actual = case.dataset.truth(case.dataset.test).double().numpy()
    base = fit_base(case.dataset)
    losses = {
        name: crps(each, actual).mean() for name, each in forecast_simple(base, case.dataset, case.dataset.test).items()
    }
    assert set(losses) == set(SIMPLE)
    floor = {
        name: crps(each, actual).mean() for name, each in forecast_baselines(case.dataset, case.dataset.test).items()
    }
    assert losses[Contender.RIDGE] == pytest.approx(floor[Contender.RIDGE], rel=0.2)
    assert losses[Contender.BOOSTED] < 0.7 * losses[Contender.LAST_VALUE]
    assert losses[Contender.RIDGE] < 0.6 * losses[Contender.LAST_VALUE]
    assert floor[Contender.SEASONAL_NAIVE_168H] < 0.6 * floor[Contender.LAST_VALUE]


def test_one_week__has_the_times_of_its_steps(case: Case) -> None:
    week = one_week(case.dataset, forecast_exported(case.student, case.dataset, case.dataset.test))
    assert {later - time for time, later in zip(week.times, week.times[1:], strict=False)} == {case.spec.student_step}
    assert dt.timedelta(days=6) <= week.times[-1] - week.times[0] < dt.timedelta(days=7)


def test_privileged_views__three_hours_of_raw_readings(case: Case) -> None:
    panel, views = case.dataset.panel, small_recipe().teacher.views.model_copy(update={"minutes_hours": 3})
    readings = panel.minutes.shape[1]
    width = privileged_width(panel, views, lookback=case.dataset.lookback, horizon=case.dataset.horizon)
    without = privileged_width(
        panel, views.without({"minutes"}), lookback=case.dataset.lookback, horizon=case.dataset.horizon
    )
    steps = {"PT15M": 12, "PT6H": 1, "P1D": 1}
    length = case.spec.student_step
    expected = next(n for step, n in steps.items() if meter(student_step=step).student_step == length)
    assert (width - without, readings) == (expected * readings, length // case.spec.raw_step)


def test_require_steps__says_what_a_step_can_not_give(case: Case) -> None:
    grid = case.spec.grid
    require_steps(small_recipe(), grid, horizon_hours=24, lookback_hours=48)
    pretrained = small_recipe().override({"teacher.pretrained": "fracast"})
    with pytest.raises(SpecError, match=f"recipe: fracast forecasts hours, and student_step is {grid.name}"):
        require_steps(pretrained, grid, horizon_hours=24, lookback_hours=48)
    if grid.step > HOUR:
        with pytest.raises(TutelageError, match=r"^lookback_hours: 47 h are not a whole number of student_step"):
            require_steps(small_recipe(), grid, horizon_hours=24, lookback_hours=47)
        with pytest.raises(SpecError, match=r"recipe.teacher.horizons: 1 h are not a whole number"):
            require_steps(small_recipe(horizons=(1,)), grid, horizon_hours=24)
    if grid.of_day == 1:
        terms = small_recipe().override({"distillation.terms.period": 1.0})
        with pytest.raises(SpecError, match=r"terms.period: it needs a horizon of 4 student_steps or more, not 1"):
            require_steps(terms, grid, horizon_hours=24)


def test_windows__all_hours_of_the_day_are_issued(case: Case) -> None:
    steps = case.dataset.panel.step[case.dataset.test]
    assert len((steps % case.spec.grid.of_day).unique()) == case.spec.grid.of_day
    assert torch.equal(steps, steps.sort().values)
