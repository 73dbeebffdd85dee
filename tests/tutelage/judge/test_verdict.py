import datetime as dt

import numpy as np
import pytest

from tests.tutelage.builders import dataset_of, random_labels, small_network, synthetic_panel
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.soft_labels import label_forecasts
from tutelage.distil.students import forecast_students
from tutelage.forecasts import Contender
from tutelage.judge.baselines import BASELINES, seasonal_naive
from tutelage.judge.comparison import Floor, Gain, Gains, gain_over
from tutelage.judge.metrics import ScoredForecasts, score_members
from tutelage.judge.verdict import (
    actual_values,
    choose,
    conclude,
    conclude_floor,
    find_floor,
    find_gains,
    floor_sentence,
    gain_text,
    gains_sentence,
    hours_of_day,
    interval_text,
    percent,
    score_baselines,
    score_contenders,
)
from tutelage.model.networks import Forecaster

STUDENT, TWIN, UNPRIVILEGED = Contender.STUDENT, Contender.TWIN, Contender.UNPRIVILEGED
START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([500]), train_hours=300, validation_hours=100)


@pytest.fixture(scope="module")
def students(dataset: WindowDataset) -> dict[Contender, Forecaster]:
    names = (STUDENT, UNPRIVILEGED, TWIN)
    return {name: small_network(dataset, members=2, seed=seed) for seed, name in enumerate(names)}


@pytest.fixture(scope="module")
def scored(dataset: WindowDataset, students: dict[Contender, Forecaster]) -> dict[Contender, ScoredForecasts]:
    return score_contenders(dataset, students, random_labels(dataset, dataset.test))


def test_hours_of_day__are_those_of_the_local_clock(dataset: WindowDataset) -> None:
    hours = hours_of_day(dataset, dataset.test)
    # The synthetic panel's clock is UTC.
    expected = dataset.panel.step[dataset.test].numpy()[:, None] + np.arange(dataset.horizon)
    np.testing.assert_array_equal(hours, expected % 24)


def test_score_contenders__scores_all_on_the_test_part(
    dataset: WindowDataset, students: dict[Contender, Forecaster], scored: dict[Contender, ScoredForecasts]
) -> None:
    actual = actual_values(dataset, dataset.test)
    assert set(scored) == {*students, Contender.TEACHER}
    for name, network in students.items():
        expected = score_members(forecast_students(network, dataset, dataset.test), actual)
        np.testing.assert_array_equal(scored[name].losses, expected.losses)
        assert scored[name].losses.shape == (2, len(dataset.test))
        assert scored[name].by_lead == expected.by_lead
    teacher = label_forecasts(random_labels(dataset, dataset.test), dataset.edges())
    assert scored[Contender.TEACHER].scores == score_members([teacher], actual).scores


def test_score_baselines__scores_those_that_the_horizon_allows(dataset: WindowDataset) -> None:
    scored = score_baselines(dataset)
    assert set(scored) == set(BASELINES)
    actual = actual_values(dataset, dataset.test)
    naive = seasonal_naive(dataset.panel, dataset.train, dataset.test, horizon=2, season=24)
    assert scored[Contender.SEASONAL_NAIVE_24H].scores == score_members([naive], actual).scores
    assert set(score_baselines(dataset, [Contender.LAST_VALUE])) == {Contender.LAST_VALUE}


def test_find_floor__is_the_simple_forecast_that_is_hardest_to_beat(dataset: WindowDataset) -> None:
    scored = score_baselines(dataset)
    best = min(scored, key=lambda name: scored[name].scores.crps)
    floor = find_floor(dataset, scored | {Contender.CHOSEN: scored[Contender.LAST_VALUE]})
    assert floor.baseline == best
    hours = dataset.panel.step[dataset.test].numpy()
    assert floor.gain == gain_over(scored[Contender.LAST_VALUE].losses, scored[best].losses, hours)
    # The teacher sees what nobody else can: it is no simple forecast.
    teacher = {Contender.TEACHER: scored[best], Contender.CHOSEN: scored[best]}
    assert find_floor(dataset, scored | teacher).baseline in BASELINES


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((-0.10, -0.04), "worse than ridge"),
        ((-0.04, 0.02), "no better than ridge"),
        ((-0.02, 0.04), "not significantly better than ridge"),
        ((0.01, 0.05), "better than every simple forecast"),
    ],
)
def test_conclude_floor__a_network_worse_than_something_simple_is_called_so(
    interval: tuple[float, float], expected: str
) -> None:
    floor = Floor(Contender.RIDGE, gain(sum(interval) / 2, *interval))
    assert conclude_floor(floor) == expected
    assert floor.is_beaten == (interval[0] > 0)


def test_floor_sentence__reads_in_one_way() -> None:
    worse = Floor(Contender.SAME_HOUR_14D, gain(-0.055, -0.09, -0.02))
    assert floor_sentence(STUDENT, worse) == (
        "The chosen student's CRPS is 5.5 % higher than that of same hour 14d (95 % CI 2.0 … 9.0 %), the best of the "
        "simple forecasts."
    )


def test_actual_values__are_the_truth_in_float64(dataset: WindowDataset) -> None:
    actual = actual_values(dataset, dataset.test)
    assert actual.dtype == np.float64
    assert actual[3, 1] == dataset.panel.observed[dataset.test[3] + 1, 0].item()


def test_choose__takes_the_better_and_of_equal_ones_the_twin() -> None:
    assert choose({STUDENT: 0.9, TWIN: 1.0}) == STUDENT
    assert choose({STUDENT: 1.1, TWIN: 1.0}) == TWIN
    assert choose({STUDENT: 1.0, TWIN: 1.0}) == TWIN


def test_find_gains__are_those_of_the_students_losses(
    dataset: WindowDataset, scored: dict[Contender, ScoredForecasts]
) -> None:
    gains = find_gains(dataset, scored)
    hours = dataset.panel.step[dataset.test].numpy()
    losses = {name: scored[name].losses for name in (STUDENT, TWIN, UNPRIVILEGED)}
    assert gains.over_twin == gain_over(losses[STUDENT], losses[TWIN], hours)
    assert gains.over_unprivileged == gain_over(losses[STUDENT], losses[UNPRIVILEGED], hours)
    by_hand = [1 - losses[STUDENT][member].mean() / losses[TWIN][member].mean() for member in range(2)]
    assert gains.by_replicate == pytest.approx(by_hand)
    alone = {name: each for name, each in scored.items() if name != UNPRIVILEGED}
    assert find_gains(dataset, alone).over_unprivileged is None


def gain(estimate: float, low: float, high: float) -> Gain:
    return Gain(estimate=estimate, low=low, high=high, p=0.5, windows=100)


@pytest.mark.parametrize(
    ("over_twin", "over_unprivileged", "expected"),
    [
        ((-0.02, -0.01), (0.01, 0.02), "the teacher did harm"),
        ((-0.01, 0.03), (0.01, 0.02), "inconclusive: no significant gain from the teacher"),
        ((0.0, 0.03), None, "inconclusive: no significant gain from the teacher"),
        ((-0.01, 0.03), (-0.03, -0.01), "no significant gain from the teacher, and its privileged data did harm"),
        ((0.01, 0.03), None, "the teacher was worth it"),
        ((0.01, 0.03), (0.001, 0.02), "the privileged data were worth it"),
        ((0.01, 0.03), (0.0, 0.02), "the teacher was worth it; no significant gain from its privileged data"),
        ((0.01, 0.03), (-0.02, -0.01), "the teacher was worth it, but its privileged data did harm"),
    ],
)
def test_conclude__privilege_is_credited_only_beyond_plain_distillation(
    over_twin: tuple[float, float], over_unprivileged: tuple[float, float] | None, expected: str
) -> None:
    def of(interval: tuple[float, float]) -> Gain:
        return gain(sum(interval) / 2, *interval)

    assert conclude(of(over_twin), None if over_unprivileged is None else of(over_unprivileged)) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.011, "1.1"), (-0.001, "−0.1"), (0.0, "0.0"), (-0.0004, "0.0"), (-0.0006, "−0.1"), (1.0, "100.0")],
)
def test_percent__has_one_decimal_and_the_minus_sign_of_text(share: float, expected: str) -> None:
    assert percent(share) == expected


def test_interval_text__golden() -> None:
    assert interval_text(-0.001, 0.026) == "−0.1 … 2.6 %"


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ((0.011, -0.001, 0.026), "1.1 % lower than the twins' (95 % CI −0.1 … 2.6 %)"),
        ((-0.011, -0.026, 0.001), "1.1 % higher than the twins' (95 % CI −0.1 … 2.6 %)"),
        ((-0.02, -0.03, -0.01), "2.0 % higher than the twins' (95 % CI 1.0 … 3.0 %)"),
        ((0.0, -0.01, 0.02), "0.0 % lower than the twins' (95 % CI −1.0 … 2.0 %)"),
    ],
    ids=["positive", "negative", "harm", "zero"],
)
def test_gain_text__reads_in_one_way(figures: tuple[float, float, float], expected: str) -> None:
    """The interval is of the figure that it stands beside: its ends have the figure's sign and are in order."""
    assert gain_text(gain(*figures), "the twins'") == expected


SMALL, HARM = gain(0.011, -0.001, 0.026), gain(-0.02, -0.03, -0.01)


def sentence(gains: Gains, days: float = 120) -> str:
    return gains_sentence(gains, test_start=START, test_end=START + dt.timedelta(days=days))


def test_gains_sentence__names_the_gain_and_the_days() -> None:
    assert sentence(Gains(SMALL, None, [0.011])) == (
        "The students' CRPS is 1.1 % lower than their twins' (95 % CI −0.1 … 2.6 %), on the 120 days from 2024-03-01."
    )
    assert "on the 14 days from 2024-03-01" in sentence(Gains(SMALL, None, [0.011]), days=14)


def test_gains_sentence__names_both_gains_and_the_replicates() -> None:
    text = sentence(Gains(SMALL, HARM, [0.02, -0.01, 0.023]))
    assert text.startswith(
        "The students' CRPS is 1.1 % lower than their twins' (95 % CI −0.1 … 2.6 %) and 2.0 % higher than that of "
        "students of unprivileged teachers (95 % CI 1.0 … 3.0 %), on the 120 days from 2024-03-01 (mean of 3 replicates"
    )
    assert "−1.0 … 2.3 %" in text
