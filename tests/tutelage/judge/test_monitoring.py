import datetime as dt
import io

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from tests.tutelage.data.builders import HOUR, START, meter
from tutelage.data.dataset import DatasetSpec
from tutelage.data.rules import Monitoring
from tutelage.judge.metrics import LEVELS
from tutelage.judge.monitoring import broken_limits, input_drift, rolling_health, verified_hours
from tutelage.judge.plots import plot_health

DAYS = 40
ISSUED = START + dt.timedelta(days=35)


def hours_of(power: np.ndarray) -> pl.DataFrame:
    times = [START + hour * HOUR for hour in range(len(power))]
    return pl.DataFrame(
        {"series_id": "meter", "time_utc": times, "power_kw": power, "indoor_c": power},
        schema_overrides={"time_utc": pl.Datetime("us", "UTC")},
    )


def forecast_of(mean: float, spread: float, *, horizon: int = 24) -> pl.DataFrame:
    """One issued forecast: the same normal distribution for each hour ahead."""
    times = [ISSUED + lead * HOUR for lead in range(horizon)]
    quantiles = {f"q{round(level * 100):02d}": [float(norm.ppf(level, mean, spread))] * horizon for level in LEVELS}
    return pl.DataFrame(
        {"series_id": "meter", "issue_time_utc": [ISSUED] * horizon, "time_utc": times, "mean": [mean] * horizon}
        | {"model_version": "1"}
        | quantiles
    ).cast({"time_utc": pl.Datetime("us", "UTC"), "issue_time_utc": pl.Datetime("us", "UTC")})


def verified(power: np.ndarray, mean: float = 5.0, spec: DatasetSpec | None = None) -> pl.DataFrame:
    return verified_hours(forecast_of(mean, 1.0), hours_of(power), spec or meter(), horizon_hours=24)


def test_verified_hours__crps_is_that_of_the_normal_distribution() -> None:
    table = verified(np.full(DAYS * 24, 5.0))
    # CRPS of a standard normal at its mean: 2 φ(0) - 1/√π
    assert table["crps"].mean() == pytest.approx(2 * norm.pdf(0) - 1 / np.sqrt(np.pi), rel=0.02)
    assert table["inside_80"].all()


def test_verified_hours__naive_repeats_the_day_before_with_its_misses() -> None:
    daily = np.sin(np.arange(DAYS * 24) * 2 * np.pi / 24) + 5
    assert verified(daily)["naive_crps"].max() == pytest.approx(0, abs=1e-9), "what repeats by the day is never missed"


def test_verified_hours__hours_that_have_not_come_true_are_left_out() -> None:
    assert verified(np.full(35 * 24 + 6, 5.0)).height == 6
    assert verified(np.full(35 * 24, 5.0)).is_empty()


def test_verified_hours__the_season_was_known_at_issue_time() -> None:
    """A 30-hour forecast can't be compared with the value a day before, which came after its issue."""
    power = np.full(DAYS * 24, 5.0)
    table = verified_hours(forecast_of(5, 1, horizon=30), hours_of(power), meter(), horizon_hours=30)
    changed = power.copy()
    changed[35 * 24 : 35 * 24 + 6] = 9.0
    again = verified_hours(forecast_of(5, 1, horizon=30), hours_of(changed), meter(), horizon_hours=30)
    assert again["naive_crps"].tail(24).equals(table["naive_crps"].tail(24))


def test_rolling_health__means_over_the_window() -> None:
    table = pl.DataFrame(
        {
            "series_id": "meter",
            "time_utc": [START, START + 24 * HOUR, START + 72 * HOUR],
            "crps": [1.0, 2.0, 3.0],
            "naive_crps": [2.0, 2.0, 4.0],
            "inside_80": [True, False, True],
        }
    )
    health = rolling_health(table, 2)
    assert health["hours"].to_list() == [1, 2, 1]
    assert health["skill"].to_list() == [0.5, 0.25, 0.25]
    assert health["coverage_80"].to_list() == [1.0, 0.5, 1.0]


def test_rolling_health__a_large_meter_does_not_decide() -> None:
    table = pl.DataFrame(
        {
            "series_id": ["small", "large"],
            "time_utc": [START, START],
            "crps": [0.2, 50.0],
            "naive_crps": [0.1, 100.0],
            "inside_80": [True, True],
        }
    )
    assert rolling_health(table, 2)["skill"].to_list() == [pytest.approx(1 - (2 + 0.5) / 2)]


def test_verified_hours__naive_has_the_misses_of_its_own_series() -> None:
    noise = np.random.default_rng(0).normal(5, 1, DAYS * 24)
    alone = verified(noise)["naive_crps"]
    small, large = (
        table.with_columns(pl.lit(name).alias("series_id"))
        for name, table in (("small", hours_of(noise)), ("large", hours_of(1000 * noise)))
    )
    forecasts = forecast_of(5, 1).with_columns(pl.lit("small").alias("series_id"))
    both = verified_hours(forecasts, pl.concat([large, small]), meter(), horizon_hours=24)
    assert both["naive_crps"].to_list() == pytest.approx(alone.to_list())


def test_input_drift__is_nought_for_the_same_and_one_for_what_is_all_higher() -> None:
    power = np.tile(np.arange(24.0) / 10, 80)
    spec, times = meter(), {"as_of": START + dt.timedelta(days=80), "trained_until": START + dt.timedelta(days=70)}
    assert input_drift(hours_of(power), spec, **times)["power_kw"] == pytest.approx(0)
    power[72 * 24 :] += 10
    assert input_drift(hours_of(power), spec, **times)["power_kw"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("figures", "sentences"),
    [
        ({"skill": -0.1}, ["CRPS skill over seasonal naive is -10.0%, below +0.0%"]),
        ({"coverage": 0.5}, ["the 80 % interval covers 50.0%, outside 60% to 95%"]),
        ({"drift": {"power_kw": 0.7}}, ["input power_kw has drifted by 0.70, above 0.50"]),
        ({}, []),
        ({"skill": -0.1, "hours": 47}, []),
    ],
)
def test_broken_limits__has_a_sentence_for_each(figures: dict, sentences: list[str]) -> None:
    healthy = {"hours": 100, "skill": 0.2, "coverage": 0.8, "drift": {"power_kw": 0.1}}
    assert broken_limits(Monitoring(), **(healthy | figures)) == sentences


def test_verified_hours__a_value_that_is_a_quantile_in_the_graphs_precision_is_inside() -> None:
    stands_by = float(np.float32(0.1))
    forecast = forecast_of(0.2, 0.05).with_columns(q05=stands_by, q10=stands_by, q15=stands_by)
    table = verified_hours(forecast, hours_of(np.full(DAYS * 24, 0.1)), meter(), horizon_hours=24)
    assert table["inside_80"].all()


def test_rolling_health__an_hour_counts_once() -> None:
    hours = pl.DataFrame({"time_utc": [START, START + HOUR]})
    several = hours.join(pl.DataFrame({"series_id": ["a", "b", "b"]}), how="cross")
    table = several.with_columns(crps=1.0, naive_crps=2.0, inside_80=True)
    assert rolling_health(table, 7)["hours"].to_list() == [2]


def test_rolling_health__a_meter_that_stands_still_has_no_skill() -> None:
    table = pl.DataFrame({"series_id": "meter", "time_utc": [START], "crps": 0.1, "naive_crps": 0.0, "inside_80": True})
    health = rolling_health(table, 7)
    assert health["skill"].to_list() == [None]
    days, coverage = health["day"].to_list(), health["coverage_80"].to_list()
    limits = {"least_skill": 0.0, "coverage_range": (0.6, 0.95), "title": "no line of skill, and no fault"}
    plot_health(days, [None], coverage, **limits).savefig(io.BytesIO())
    assert broken_limits(Monitoring(), hours=100, skill=None, coverage=0.5, drift={}) != []
