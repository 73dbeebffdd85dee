import datetime as dt
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tutelage.builders import (
    PROPERTY,
    READINGS,
    START,
    grid_of,
    hours_span,
    small_spec,
    synthetic_panel,
)
from tests.tutelage.data.builders import START as METER_START
from tests.tutelage.data.builders import meter, random_readings
from tutelage.data.grid import HOURLY
from tutelage.data.inputs import recent_steps
from tutelage.data.quality import clean
from tutelage.data.resample import readings_within, student_table
from tutelage.data.windows import (
    Panel,
    Parts,
    Span,
    gather_long_past,
    make_panel,
    split,
    spread_step,
    thinned,
    window_origins,
)
from tutelage.errors import DataError

LENGTHS = st.integers(1, 5)
DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)


@st.composite
def panels(draw: st.DrawFn) -> Panel:
    """One to three series, each with another first hour, with missing values."""
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=3))
    starts = [draw(st.integers(0, 20)) for _ in lengths]
    missing = draw(st.sampled_from([0.0, 0.02, 0.1]))
    return synthetic_panel(lengths, seed=draw(st.integers(0, 999)), missing=missing, starts=starts)


def brute_force(
    panel: Panel, span: Span, lookback: int, horizon: int, *, labelled: bool, earliest: int | None = None
) -> list[int]:
    """The rule, window by window; the past may reach back to the hour `earliest`."""
    origins = []
    for origin in range(lookback, len(panel.step) - horizon + 1):
        rows, future = slice(origin - lookback, origin + horizon), slice(origin, origin + horizon)
        one_series = len(panel.series[rows].unique()) == 1
        past = range(span.steps(HOURLY).start if earliest is None else earliest, span.steps(HOURLY).stop)
        inside = all(hour in span.steps(HOURLY) for hour in panel.step[future].tolist())
        inside = inside and all(hour in past for hour in panel.step[rows].tolist())
        seen = panel.observed[rows][:lookback].isfinite().all()
        known = panel.known[future].isfinite().all()
        target = bool(panel.observed[future, 0].isfinite().all())
        if one_series and inside and seen and known and target == labelled:
            origins.append(origin)
    return origins


def target_hours(panel: Panel, span: Span, start: dt.datetime, lookback: int, horizon: int) -> set[int]:
    """All hours of the targets of a part's windows, whose past may reach back to `start`."""
    origins = window_origins(panel, span, lookback=lookback, horizon=horizon, start=start)
    rows = origins[:, None] + torch.arange(horizon)
    return set(panel.step[rows].flatten().tolist())


@PROPERTY
@given(panels(), st.integers(0, 40), st.integers(0, 40), st.integers(0, 20), LENGTHS, LENGTHS)
def test_window_origins__are_those_of_brute_force(
    panel: Panel, first: int, hours: int, before: int, lookback: int, horizon: int
) -> None:
    span = hours_span(first, first + hours)
    start = span.start - before * HOUR
    reaching = window_origins(panel, span, lookback=lookback, horizon=horizon, start=start)
    assert reaching.tolist() == brute_force(panel, span, lookback, horizon, labelled=True, earliest=HOURLY.index(start))
    origins = window_origins(panel, span, lookback=lookback, horizon=horizon)
    assert origins.tolist() == brute_force(panel, span, lookback, horizon, labelled=True)
    without = window_origins(panel, span, lookback=lookback, horizon=horizon, labelled=False)
    assert without.tolist() == brute_force(panel, span, lookback, horizon, labelled=False)
    rows = origins[:, None] + torch.arange(-lookback, horizon)
    assert (panel.step[rows].diff(dim=1) == 1).all()


def test_window_origins__an_unknown_future_hour_makes_no_window() -> None:
    panel = synthetic_panel([20])
    panel.known[10, 2] = torch.nan
    origins = window_origins(panel, hours_span(0, 20), lookback=3, horizon=2)
    assert origins.tolist() == [3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18]


@PROPERTY
@given(
    st.integers(10, 60),
    st.one_of(st.none(), st.integers(4, 6)),
    st.floats(0.15, 0.5),
    st.integers(1, 4),
    LENGTHS,
    LENGTHS,
)
def test_split__parts_touch_and_their_windows_share_no_target_hour(
    days: int, history_days: int | None, share: float, test_days: int, lookback: int, horizon: int
) -> None:
    end = START + days * DAY
    parts = split(end, start=START, history_days=history_days, validation_share=share, test_days=test_days)
    assert parts.train.start == (START if history_days is None else end - (test_days + history_days) * DAY)
    assert parts.train.start < parts.train.end == parts.validation.start < parts.validation.end == parts.test.start
    assert parts.test.end - parts.test.start == test_days * DAY
    panel = synthetic_panel([days * 24])
    start, spans = parts.train.start, (parts.train, parts.validation, parts.test)
    hours = [target_hours(panel, span, start, lookback, horizon) for span in spans]
    whole = (parts.test.end - parts.train.start) / DAY * 24
    assert len(set.union(*hours)) == sum(map(len, hours)) == whole - lookback


def test_split__golden() -> None:
    end = dt.datetime(2024, 5, 1, 6, tzinfo=dt.UTC)
    parts = split(end, start=START, history_days=100, validation_share=0.2, test_days=10)
    train, validation, test = end - 110 * DAY, end - 30 * DAY, end - 10 * DAY
    assert parts == Parts(train=Span(train, validation), validation=Span(validation, test), test=Span(test, end))


@pytest.mark.parametrize(("history_days", "test_days"), [(8, 3), (None, 10), (None, 11)])
def test_split__refuses_a_history_that_is_too_short(history_days: int | None, test_days: int) -> None:
    with pytest.raises(DataError, match="the history is too short"):
        split(START + 10 * DAY, start=START, history_days=history_days, validation_share=0.2, test_days=test_days)


def test_make_panel__holds_the_table_row_by_row() -> None:
    spec = small_spec()
    readings = np.random.default_rng(0).uniform(1, 9, (30, READINGS, 3))
    readings[3, :, 0] = np.nan
    grid = pl.concat([grid_of(spec, readings), grid_of(spec, readings[:5] * 2, series_id="b")])
    hours = student_table(grid, spec)
    panel = make_panel(hours, readings_within(grid, hours, spec), spec)
    assert panel.series.tolist() == [0] * 30 + [1] * 5
    assert panel.step.tolist() == [HOURLY.index(START) + i for i in [*range(30), *range(5)]]
    assert panel.observed.isnan().nonzero().tolist() == [[3, 0], [33, 0]]
    assert panel.observed[1, 0].item() == pytest.approx(readings[1, :, 0].mean())
    assert panel.auxiliary[:30].numpy() == pytest.approx(hours["heat_wh", "voltage_v"][:30].to_numpy(), rel=1e-6)
    assert panel.known[[0, 23, 24, 30]].tolist() == [[0, 0, 0], [23, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_gather_long_past__what_is_not_there_is_nan() -> None:
    panel = synthetic_panel([10, 10])
    panel.observed[4, 0] = torch.nan
    past = gather_long_past(panel, torch.tensor([6, 13]), 5, first_step=int(panel.step[2]), complete=0)
    assert past.shape == (2, 5, 2)
    # Hours 1 … 5: 1 is before the history, 4 has no value. Then 8 … 12: two are of another series, two too early.
    assert past[..., 0].isnan().tolist() == [[True, False, False, True, False], [True, True, True, True, False]]
    assert torch.equal(past[0, 4], panel.observed[5])
    assert torch.equal(past[1, 4], panel.observed[12])
    early = gather_long_past(panel, torch.tensor([1]), 3, first_step=0, complete=0)
    assert early[0, :, 0].isnan().tolist() == [True, True, False]


def test_gather_long_past__the_last_hours_have_their_gaps_filled() -> None:
    panel = synthetic_panel([10])
    panel.observed[[3, 6], 0] = torch.nan
    panel = replace(panel, filled=panel.observed.nan_to_num(nan=9.0))
    past = gather_long_past(panel, torch.tensor([8]), 6, first_step=0, complete=3)
    assert past[0, :, 0].isnan().tolist() == [False, True, False, False, False, False]
    assert past[0, 4, 0] == 9
    assert panel.observed[6, 0].isnan()


@pytest.mark.parametrize(("most", "expected"), [(0, [4, 5, 11]), (1, [4, 5, 8, 9, 10, 11]), (2, [4, 5, 8, 9, 10, 11])])
def test_window_origins__hours_of_the_past_may_be_filled(most: int, expected: list[int]) -> None:
    panel = synthetic_panel([13])
    panel.observed[7, 0] = torch.nan
    filled = panel.observed.clone()
    filled[7, 0] = 1.0
    panel = replace(panel, filled=filled, most_filled=most)
    everything = Span(START, START + 13 * HOUR)
    # An hour of the target is never filled: windows from 6 and 7 on are none.
    assert window_origins(panel, everything, lookback=3, horizon=2).tolist()[1:] == expected
    panel.filled[7, 0] = torch.nan
    assert window_origins(panel, everything, lookback=3, horizon=2).tolist()[1:] == [4, 5, 11]


def test_make_panel__fills_as_a_forecast_does() -> None:
    """The past of a training window is what `recent_steps` gives a forecast at its issue time."""
    spec = meter()
    readings = random_readings(spec, days=4)
    gone = pl.col("time_utc").is_between(METER_START + 60 * HOUR, METER_START + 62 * HOUR, closed="left")
    readings = readings.with_columns(pl.when(~gone).then(pl.col("power_kw")).alias("power_kw"))
    grid = clean(readings, spec)
    hours = student_table(grid, spec)
    panel = make_panel(hours, readings_within(grid, hours, spec), spec)
    issued = METER_START + 70 * HOUR
    recent = recent_steps(readings, spec, issued, lookback_hours=24, complete_hours=24, horizon_hours=1)
    assert recent["filled"].sum() == 2
    row = (panel.step == HOURLY.index(issued)).nonzero().item()
    past = panel.seen[row - 24 : row].double().numpy()
    np.testing.assert_allclose(past, recent.select("power_kw", "indoor_c").to_numpy(), rtol=1e-6)
    span = Span(issued, issued + 2 * HOUR)
    [origin] = window_origins(panel, span, lookback=24, horizon=2, start=METER_START).tolist()
    assert origin == row


@pytest.mark.parametrize(
    ("windows", "most"), [(10, 600), (601, 600), (2_400, 600), (4_200, 600), (14_400, 600), (1, 1), (1_000, 7)]
)
def test_spread_step__takes_all_hours_of_the_week_and_no_more_than_most(windows: int, most: int) -> None:
    step = spread_step(windows, most)
    assert math.gcd(step, 7 * 24) == 1
    assert -(-windows // step) <= most


def test_thinned__takes_every_series_and_all_hours_of_the_day() -> None:
    panel = synthetic_panel([400, 300, 500])
    origins = window_origins(panel, hours_span(0, 10**6), lookback=4, horizon=2)
    fewer = thinned(panel, origins, 300)
    assert 200 < len(fewer) <= 300
    assert set(fewer.tolist()) <= set(origins.tolist())
    for number in range(3):
        of_series = fewer[panel.series[fewer] == number]
        assert len((panel.step[of_series] % 24).unique()) == 24
    assert thinned(panel, origins, len(origins)).equal(origins)
