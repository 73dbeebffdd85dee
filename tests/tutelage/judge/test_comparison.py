import inspect
from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import t

from benchmarks.promotion import hourly_differences, performance
from tutelage.forecasts import Contender
from tutelage.judge.comparison import (
    COSINES,
    Losses,
    cosine_error,
    gain_between,
    gain_over,
    losses_by_time,
    one_sided_p,
)

WEEKS = 17  # about the 120 days of a default test part


def autocorrelated(noise: np.random.Generator, hours: int = WEEKS * 168) -> np.ndarray:
    """AR(1) with a day's memory and a standard deviation of about 1."""
    return np.convolve(noise.normal(size=hours + 199), 0.3 * 0.95 ** np.arange(200), mode="valid")


def test_gain_over__identical_forecasts_gain_nothing() -> None:
    losses = np.random.default_rng(0).uniform(1, 2, 500)
    gain = gain_over(losses, losses, np.arange(500))
    assert (gain.estimate, gain.low, gain.high, gain.p, gain.windows) == (0, 0, 0, 1, 500)


def test_gain_over__a_clearly_better_forecast_surely_gains() -> None:
    noise = np.random.default_rng(0)
    reference = 2 + autocorrelated(noise).clip(-1, 1)
    candidate = 0.9 * reference + 0.05 * noise.normal(size=len(reference))
    gain = gain_over(candidate, reference, np.arange(len(reference)))
    assert gain.estimate == 1 - candidate.mean() / reference.mean()
    assert 0.09 < gain.low < gain.estimate < gain.high < 0.11
    assert gain.p < 0.001
    turned = gain_over(reference, candidate, np.arange(len(reference)))
    assert turned.high < 0
    assert turned.p > 0.999


def test_gain_over__the_interval_covers_the_true_gain() -> None:
    noise, trials = np.random.default_rng(0), 400
    issued, covered = np.arange(WEEKS * 168), 0
    for _ in range(trials):
        common = 4 + autocorrelated(noise)
        gain = gain_over(0.95 * common + 0.2 * autocorrelated(noise), common, issued)
        covered += gain.low <= 0.05 <= gain.high
    assert 0.93 <= covered / trials <= 0.98


@pytest.mark.parametrize(("memory", "months", "most"), [(True, 0.0, 0.035), (True, 1.0, 0.055)])
def test_gain_over__claims_no_more_than_it_says_where_errors_last(memory: bool, months: float, most: float) -> None:
    """At the level 2.5 %; of the same losses a bootstrap in blocks of a week claims 5 to 18 %."""
    rng, hour, trials = np.random.default_rng(1), np.arange(120 * 24), 1000
    differences = (hourly_differences(rng, 120, memory=memory, months=months) for _ in range(trials))
    claimed = sum(gain_over(1 - each, np.ones(len(hour)), hour).low > 0 for each in differences)
    assert 0.01 <= claimed / trials <= most


def test_gain_over__the_interval_is_wider_than_that_of_independent_windows() -> None:
    noise, issued, width = np.random.default_rng(0), np.arange(WEEKS * 168), {"real": 0.0, "independent": 0.0}
    for _ in range(30):
        reference = 4 + autocorrelated(noise)
        candidate = reference + 0.5 * autocorrelated(noise)
        shuffled = noise.permutation(len(reference))
        for name, order in (("real", issued), ("independent", shuffled)):
            gain = gain_over(candidate[order], reference[order], issued)
            width[name] += gain.high - gain.low
    assert width["real"] > 4 * width["independent"]


def test_gain_over__windows_of_one_hour_are_averaged_first() -> None:
    noise = np.random.default_rng(0)
    candidate, reference = noise.uniform(1, 2, (2, 300)), noise.uniform(1, 2, (2, 300))
    hours = np.arange(1000, 1300)
    order = noise.permutation(600)  # nor does the order of the windows matter
    stacked = gain_over(candidate.ravel()[order], reference.ravel()[order], np.tile(hours, 2)[order])
    averaged = gain_over(candidate.mean(axis=0), reference.mean(axis=0), hours)
    assert stacked.windows == 300
    assert asdict(stacked) == pytest.approx(asdict(averaged))


def test_gain_over__one_issue_time_says_nothing() -> None:
    gain = gain_over(np.array([1.0]), np.array([2.0]), np.array([5]))
    assert (gain.estimate, gain.low, gain.high, gain.p, gain.windows) == (0.5, -0.5, 1.5, 1, 1)
    two = gain_over(np.array([1.0, 1.1]), np.array([2.0, 2.0]), np.array([5, 6]))
    assert (two.estimate, two.windows) == (pytest.approx(0.475), 2)
    assert two.low < 0.47 < 0.48 < two.high


def test_gain_over__of_replicates_is_that_of_the_mean_loss() -> None:
    noise = np.random.default_rng(0)
    candidate, reference = noise.uniform(1, 2, (2, 4, 300))
    gain = gain_over(candidate, reference, np.arange(300))
    assert gain.estimate == pytest.approx(1 - candidate.mean() / reference.mean())
    assert gain.windows == 300
    alone = gain_over(candidate[:1], reference[:1], np.arange(300))
    assert alone == gain_over(candidate[0], reference[0], np.arange(300))


def test_gain_over__replicates_that_disagree_widen_the_interval() -> None:
    noise = np.random.default_rng(0)
    reference = np.tile(2 + autocorrelated(noise).clip(-1, 1), (6, 1))
    same = 0.97 * reference
    shares = np.array([0.85, 0.91, 0.96, 1.0, 1.03, 1.07])[:, None]  # of each replicate another gain, 3 % in the mean
    spread = shares * reference
    hours = np.arange(reference.shape[1])
    agreed, split = (gain_over(candidate, reference, hours) for candidate in (same, spread))
    assert agreed.estimate == pytest.approx(0.03)
    assert split.estimate == pytest.approx(0.03)
    assert agreed.low > 0.029
    assert split.low < 0 < split.high
    # A standard error of the mean of six shares, by a t of five degrees of freedom.
    assert split.high - split.low == pytest.approx(2 * t.ppf(0.975, 5) * shares.std(ddof=1) / np.sqrt(6), rel=0.01)


@pytest.mark.parametrize("lengths", [(3, 4, 4), (4, 3, 4), (4, 4, 3), (0, 0, 0)])
def test_gain_over__refuses_what_can_not_be_paired(lengths: tuple[int, int, int]) -> None:
    unchecked = inspect.unwrap(gain_over)  # as it runs in production, where no annotation is checked
    losses = [np.ones(length) for length in lengths[:2]]
    with pytest.raises(ValueError, match="can't be paired"):
        unchecked(*losses, np.arange(lengths[2]))


def test_cosine_error__is_that_of_the_three_slowest_movements() -> None:
    weekly = np.random.default_rng(3).normal(0.4, 1, 17)
    place = (np.arange(17) + 0.5) / 17
    projected = [np.sqrt(2 / 17) * (np.cos(np.pi * number * place) * weekly).sum() for number in (1, 2, 3)]
    assert cosine_error(weekly) == (pytest.approx(np.sqrt(np.square(projected).mean() / 17)), COSINES)
    assert cosine_error(weekly + 5) == (pytest.approx(cosine_error(weekly)[0]), COSINES)
    assert cosine_error(weekly[:3])[1] == 2


def test_cosine_error__of_hours_is_about_that_of_their_weeks() -> None:
    hourly = hourly_differences(np.random.default_rng(0), 119, memory=True, months=1.0)
    assert cosine_error(hourly)[0] == pytest.approx(cosine_error(hourly.reshape(17, 168).mean(axis=1))[0], rel=0.05)


@pytest.mark.parametrize(("memory", "months"), [(0.0, 0.0), (0.3, 0.0), (0.0, 1.0), (0.3, 1.0)])
@pytest.mark.parametrize("weeks", [8, 17])
def test_cosine_error__holds_where_errors_last(memory: float, months: float, weeks: int) -> None:
    """At the level 2.5 %, of which a t-test on seventeen weeks takes 12 to 15 % where months favour a network."""
    rng, trials = np.random.default_rng(0), 4000
    claimed = 0
    for _ in range(trials):
        advantage = performance(rng, weeks, memory=memory, months=months)
        claimed += one_sided_p(float(advantage.mean()), *cosine_error(advantage)) <= 0.025
    assert claimed / trials < (0.045 if weeks == 17 else 0.10)


def test_one_sided_p__without_any_error() -> None:
    assert (one_sided_p(0.1, 0.0, 3), one_sided_p(0.0, 0.0, 3), one_sided_p(-0.1, 0.0, 3)) == (0, 1, 1)


def of_two_series() -> tuple[np.ndarray, np.ndarray]:
    """Losses of two members, and the issue time of each window: two series, the second starts later."""
    rng = np.random.default_rng(0)
    return rng.uniform(1, 2, (2, 300)), np.concatenate([np.arange(200), np.arange(100, 200)])


def test_losses_by_time__compare_as_windows_do() -> None:
    first, issued = of_two_series()
    second = first * 1.1 + 0.01
    names = {Contender.STUDENT: first, Contender.TWIN: second}
    losses = losses_by_time(names, issued)
    assert losses.step.tolist() == list(range(200))
    assert losses.by_contender[Contender.TWIN].shape == (2, 200)
    assert losses.by_contender[Contender.TWIN][:, 150] == pytest.approx(second[:, issued == 150].mean(axis=1))
    between = gain_between((losses, Contender.STUDENT), (losses, Contender.TWIN))
    assert asdict(between) == pytest.approx(asdict(gain_over(first, second, issued)))


def test_gain_between__is_that_of_common_issue_times() -> None:
    first, second = (
        Losses(np.arange(*span), {Contender.STUDENT: np.full((1, 60), mean)})
        for span, mean in (((0, 60), 1.0), ((40, 100), 2.0))
    )
    gain = gain_between((first, Contender.STUDENT), (second, Contender.STUDENT))
    assert (gain.estimate, gain.windows) == (0.5, 20)


@pytest.mark.parametrize(("loss", "gain"), [(0.0, 0.0), (0.1, -1.0)])
def test_gain_over__a_reference_without_any_loss(loss: float, gain: float) -> None:
    over = gain_over(np.full(50, loss), np.zeros(50), np.arange(50))
    assert (over.estimate, over.low, over.high, over.p, over.windows) == (gain, gain, gain, 1, 50)
