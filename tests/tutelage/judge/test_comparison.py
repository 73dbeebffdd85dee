import inspect
from dataclasses import asdict

import numpy as np
import pytest

from tutelage.judge import comparison
from tutelage.judge.comparison import gain_over

WEEKS = 17  # about the 120 days of a default test part


def autocorrelated(noise: np.random.Generator, hours: int = WEEKS * 168) -> np.ndarray:
    """AR(1) with a day's memory and a standard deviation of about 1."""
    return np.convolve(noise.normal(size=hours + 199), 0.3 * 0.95 ** np.arange(200), mode="valid")


def test_gain_over__identical_forecasts_gain_nothing() -> None:
    losses = np.random.default_rng(0).uniform(1, 2, 500)
    gain = gain_over(losses, losses, np.arange(500), seed=0)
    assert (gain.estimate, gain.low, gain.high, gain.p, gain.windows) == (0, 0, 0, 1, 500)


def test_gain_over__a_clearly_better_forecast_surely_gains() -> None:
    noise = np.random.default_rng(0)
    reference = 2 + autocorrelated(noise).clip(-1, 1)
    candidate = 0.9 * reference + 0.05 * noise.normal(size=len(reference))
    gain = gain_over(candidate, reference, np.arange(len(reference)), seed=0)
    assert gain.estimate == 1 - candidate.mean() / reference.mean()
    assert 0.09 < gain.low < gain.estimate < gain.high < 0.11
    assert gain.p < 0.001
    turned = gain_over(reference, candidate, np.arange(len(reference)), seed=0)
    assert turned.high < 0
    assert turned.p > 0.999


def test_gain_over__the_interval_covers_the_true_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "REPETITIONS", 200)  # enough to count by, and ten times as fast
    noise, trials = np.random.default_rng(0), 100
    issued, covered = np.arange(WEEKS * 168), 0
    for seed in range(trials):
        common = 4 + autocorrelated(noise)
        gain = gain_over(0.95 * common + 0.2 * autocorrelated(noise), common, issued, seed=seed)
        covered += gain.low <= 0.05 <= gain.high
    assert 0.85 <= covered / trials < 1


def test_gain_over__the_interval_is_wider_than_that_of_independent_windows() -> None:
    noise = np.random.default_rng(0)
    reference = 4 + autocorrelated(noise)
    candidate = reference + 0.5 * autocorrelated(noise)
    shuffled = noise.permutation(len(reference))
    issued = np.arange(len(reference))
    real = gain_over(candidate, reference, issued, seed=0)
    independent = gain_over(candidate[shuffled], reference[shuffled], issued, seed=0)
    assert real.high - real.low > 3 * (independent.high - independent.low)


def test_gain_over__windows_of_one_hour_are_averaged_first() -> None:
    noise = np.random.default_rng(0)
    candidate, reference = noise.uniform(1, 2, (2, 300)), noise.uniform(1, 2, (2, 300))
    hours = np.arange(1000, 1300)
    order = noise.permutation(600)  # nor does the order of the windows matter
    stacked = gain_over(candidate.ravel()[order], reference.ravel()[order], np.tile(hours, 2)[order], seed=0)
    averaged = gain_over(candidate.mean(axis=0), reference.mean(axis=0), hours, seed=0)
    assert stacked.windows == 300
    assert asdict(stacked) == pytest.approx(asdict(averaged))


def test_gain_over__follows_the_seed() -> None:
    noise = np.random.default_rng(0)
    losses = noise.uniform(1, 2, (2, 300))
    first = gain_over(*losses, np.arange(300), seed=0)
    assert gain_over(*losses, np.arange(300), seed=0) == first
    other = gain_over(*losses, np.arange(300), seed=1)
    assert other.low != first.low
    assert other.estimate == first.estimate


def test_gain_over__one_window_is_enough() -> None:
    gain = gain_over(np.array([1.0]), np.array([2.0]), np.array([5]), seed=0)
    assert (gain.estimate, gain.low, gain.high, gain.windows) == (0.5, 0.5, 0.5, 1)


def test_gain_over__of_replicates_is_that_of_the_mean_loss() -> None:
    noise = np.random.default_rng(0)
    candidate, reference = noise.uniform(1, 2, (2, 4, 300))
    gain = gain_over(candidate, reference, np.arange(300), seed=0)
    assert gain.estimate == pytest.approx(1 - candidate.mean() / reference.mean())
    assert gain.windows == 300
    alone = gain_over(candidate[:1], reference[:1], np.arange(300), seed=0)
    assert alone == gain_over(candidate[0], reference[0], np.arange(300), seed=0)


def test_gain_over__replicates_that_disagree_widen_the_interval() -> None:
    noise = np.random.default_rng(0)
    reference = np.tile(2 + autocorrelated(noise).clip(-1, 1), (6, 1))
    same = 0.97 * reference
    shares = np.array([0.85, 0.91, 0.96, 1.0, 1.03, 1.07])[:, None]  # of each replicate another gain, 3 % in the mean
    spread = shares * reference
    hours = np.arange(reference.shape[1])
    agreed, split = (gain_over(candidate, reference, hours, seed=0) for candidate in (same, spread))
    assert agreed.estimate == pytest.approx(0.03)
    assert split.estimate == pytest.approx(0.03)
    assert agreed.low > 0.029
    assert split.low < 0 < split.high
    # Six draws of six: a standard error of the mean of the shares, 0.03, twice to either side.
    assert split.high - split.low == pytest.approx(4 * shares.std() / np.sqrt(6), rel=0.15)


@pytest.mark.parametrize("lengths", [(3, 4, 4), (4, 3, 4), (4, 4, 3), (0, 0, 0)])
def test_gain_over__refuses_what_can_not_be_paired(lengths: tuple[int, int, int]) -> None:
    unchecked = inspect.unwrap(gain_over)  # as it runs in production, where no annotation is checked
    losses = [np.ones(length) for length in lengths[:2]]
    with pytest.raises(ValueError, match="can't be paired"):
        unchecked(*losses, np.arange(lengths[2]), seed=0)
