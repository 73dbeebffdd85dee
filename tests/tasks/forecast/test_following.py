"""A model of two members and two series, with an atom, issued hour by hour."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest

from runtime.packaging import write_model
from schemas.forecast import ChampionManifest, RecentManifest, model_columns
from tasks.forecast.following import MEMBERS, NAMES, WEIGHTS, WIDTH_ABOVE
from tasks.forecast.issue import issue_forecast
from tests.tutelage.data.builders import HOUR, START, meter, untrained_student
from tutelage.files import write_table
from tutelage.forecasts import QUANTILE_LEVELS, QUANTILE_NAMES, Contender, Forecasts
from tutelage.model.aggregation import KNOT_LEVELS, Atom, Members, as_issued
from tutelage.model.base import Base, Changes
from tutelage.model.export import export_student, student_card

SPEC = meter()
LOOKBACK, HORIZON, HOURS = 6, 2, 36
SIZES = {"small": 1.0, "large": 8.0}
ATOM = Atom(1.0, 0.05)
BASE = Base(
    {Contender.LAST_VALUE: 0.6},
    linear=None,
    trees=None,
    changes=Changes(np.zeros(HORIZON), np.tile(np.linspace(-1, 1, len(QUANTILE_LEVELS)), (HORIZON, 1))),
    atom=ATOM,
)


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """The hours of both series: waves of their size that often are at the atom."""
    random, wave = np.random.default_rng(0), 1.5 + 2 * np.sin(np.arange(HOURS) / 3)
    waves = {name: size * (wave + random.normal(size=HOURS) / 4).clip(ATOM.value) for name, size in SIZES.items()}
    times = [START + hour * HOUR for hour in range(HOURS)]
    indoor = random.uniform(15, 25, HOURS)
    parts = [
        pl.DataFrame({"series_id": name, "time_utc": times, "power_kw": wave, "indoor_c": indoor})
        for name, wave in waves.items()
    ]
    return pl.concat(parts).with_columns(missing=pl.lit(False), filled=pl.lit(False))


@pytest.fixture(scope="module")
def champion(table: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ChampionManifest:
    """The registered model of an untrained network and the last value."""
    folder = tmp_path_factory.mktemp("champion")
    network, bins = untrained_student(SPEC, lookback=LOOKBACK, horizon=HORIZON)
    card = student_card(network, SPEC, trained_until=START, base=BASE)
    card |= {"sizes": {"of_series": SIZES, "spread": 1.0, "columns": ["power_kw"]}, "ranges": {}}
    export_student(network, bins, card, folder / "export", base=BASE)
    example = table.head(LOOKBACK).select(model_columns(SPEC)).with_columns(pl.col("time_utc").dt.to_string("%FT%T"))
    write_model(folder / "model", folder / "export", example.to_pandas())
    return ChampionManifest(
        folder=folder / "model",
        name="followed",
        version="1",
        lookback_hours=LOOKBACK,
        complete_hours=LOOKBACK,
        horizon_hours=HORIZON,
        trained_until_utc=START,
    )


def recent(table: pl.DataFrame, hour: int, folder: Path) -> RecentManifest:
    """The lookback of both series before an hour."""
    issued = START + hour * HOUR
    before = table.filter(pl.col("time_utc").is_between(issued - LOOKBACK * HOUR, issued, closed="left"))
    path, digest = write_table(before, folder)
    return RecentManifest(path=path, digest=digest, issue_time_utc=issued)


def members_of(model: mlflow.pyfunc.PyFuncModel, hours: pl.DataFrame, name: str) -> Members:
    """What the model's graph says of the last hours, by hand: divided by the series' size and multiplied again."""
    forecaster, size = model.unwrap_python_model(), SIZES[name]
    seen = (
        hours.filter(pl.col("series_id") == name)
        .to_pandas()
        .assign(time_utc=lambda t: t["time_utc"].dt.tz_convert("UTC"))
    )
    _, observed, known, _ = forecaster._window(name, seen)
    observed[:, 0] /= size
    inputs = {"observed": observed[None].astype(np.float32), "known": known[None].astype(np.float32)}
    outputs = forecaster.session.run(["member_means", "member_quantiles"], inputs)
    means, quantiles = (size * each.astype(np.float64).swapaxes(0, 1) for each in outputs)
    return Members(BASE.shares, means, quantiles, Atom(size * ATOM.value, size * ATOM.reach))


def test_issue_forecast__hour_by_hour_is_what_the_core_says(
    table: pl.DataFrame, champion: ChampionManifest, tmp_path: Path
) -> None:
    model = mlflow.pyfunc.load_model(str(champion.folder))
    issues = range(LOOKBACK, HOURS - HORIZON)
    hours = [recent(table, hour, tmp_path) for hour in issues]
    stored = pl.concat([pl.read_parquet(issue_forecast.fn(each, SPEC, champion).path) for each in hours])
    for name in SIZES:
        every = [members_of(model, pl.read_parquet(each.path), name) for each in hours]
        members = Members(
            BASE.shares,
            np.concatenate([each.mean for each in every], axis=1),
            np.concatenate([each.quantiles for each in every], axis=1),
            every[0].atom,
        )
        power = table.filter(pl.col("series_id") == name)["power_kw"].to_numpy()
        step = np.array(issues)
        expected = as_issued(members, step, power[step[:, None] + np.arange(HORIZON)])
        rows = stored.filter(pl.col("series_id") == name)
        found = Forecasts(
            rows["mean"].to_numpy().reshape(len(issues), HORIZON),
            rows.select(QUANTILE_NAMES).to_numpy().reshape(len(issues), HORIZON, -1),
        )
        np.testing.assert_allclose(found.quantiles, expected.quantiles, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-4, atol=1e-4)
        fixed = members.average()
        assert np.abs(found.quantiles - fixed.quantiles).max() > 0.1 * SIZES[name]
        assert found.quantiles.min() == SIZES[name] * ATOM.value


def test_issue_forecast__stores_what_the_next_weights_are_learned_from(
    table: pl.DataFrame, champion: ChampionManifest, tmp_path: Path
) -> None:
    other = champion.model_copy(update={"name": "stored"})
    first, second = (
        pl.read_parquet(issue_forecast.fn(recent(table, hour, tmp_path), SPEC, other).path) for hour in (10, 11)
    )
    for name in SIZES:
        rows, later = (each.filter(pl.col("series_id") == name) for each in (first, second))
        assert rows[WEIGHTS].to_list() == [pytest.approx([0.4, 0.6])] * HORIZON
        assert len(rows[MEMBERS][0]) == 2 * len(KNOT_LEVELS)
        [weights] = later[WEIGHTS].unique(maintain_order=True).to_list()
        assert sum(weights) == pytest.approx(1)
        assert weights != pytest.approx([0.4, 0.6])


def test_issue_forecast__a_series_that_was_left_out_follows_its_last_forecast(
    table: pl.DataFrame, champion: ChampionManifest, tmp_path: Path
) -> None:
    weights = {}
    for name, left_out in (("whole", ()), ("gap", (12, 13))):
        each = champion.model_copy(update={"name": name})
        for hour in range(8, 15):
            hours = recent(table.filter(pl.col("series_id") == "large") if hour in left_out else table, hour, tmp_path)
            issued = pl.read_parquet(issue_forecast.fn(hours, SPEC, each).path)
        small = issued.filter(pl.col("series_id") == "small")
        weights[name] = small[WEIGHTS][0].to_list()
    # Without what it had learned before it would be near 0.4.
    assert weights["gap"][0] == pytest.approx(weights["whole"][0], abs=0.1)
    assert weights["gap"][0] < 0.25


def test_issue_forecast__version_numbers_that_begin_anew_begin_with_the_fixed_weights(
    table: pl.DataFrame, champion: ChampionManifest, tmp_path: Path
) -> None:
    again = champion.model_copy(update={"name": "again"})
    first = issue_forecast.fn(recent(table, 10, tmp_path), SPEC, again)
    stored = pl.read_parquet(first.path)
    of_another = stored.with_columns(
        pl.lit(["network", "ridge", "boosted"]).alias(NAMES),
        pl.lit([0.2, 0.3, 0.5]).alias(WEIGHTS),
        pl.lit([0.0] * 3 * len(KNOT_LEVELS), dtype=pl.List(pl.Float32)).alias(MEMBERS),
    )
    of_another.write_parquet(first.path)
    second = pl.read_parquet(issue_forecast.fn(recent(table, 11, tmp_path), SPEC, again).path)
    assert second[WEIGHTS][0].to_list() == pytest.approx([0.4, 0.6])
    assert (second[WIDTH_ABOVE] == 1).all()


def test_issue_forecast__a_version_that_does_not_give_out_its_members_is_widened_only(
    table: pl.DataFrame, champion: ChampionManifest, tmp_path: Path
) -> None:
    older = champion.model_copy(update={"name": "older", "folder": tmp_path / "model"})
    shutil.copytree(champion.folder, older.folder)
    [code] = older.folder.glob("forecaster.py")
    code.write_text(code.read_text().replace("forecast_members", "forecast_with_more"))
    [first, *_, last] = (
        pl.read_parquet(issue_forecast.fn(recent(table, hour, tmp_path), SPEC, older).path) for hour in range(8, 14)
    )
    assert last[WEIGHTS].to_list() == [[1.0]] * last.height
    assert (first[WIDTH_ABOVE] == 1).all()
    assert (last[WIDTH_ABOVE] != 1).any()
    before = pl.read_parquet(recent(table, 13, tmp_path).path).select(model_columns(SPEC))
    by_model = mlflow.pyfunc.load_model(str(champion.folder)).predict(before.to_pandas())
    assert last["q50"].to_list() == pytest.approx(by_model["q50"].tolist(), abs=1e-6)
