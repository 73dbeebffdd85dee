"""How often luck claims a gain, and how often it replaces a champion: simulated. `make bench-promotion`.

1. One verdict: two equal networks' hourly losses differ by noise that spans the windows' overlap and, where said, has a
   memory of days and changes by month. How often is a gain claimed whose interval at 95 % should do so in 2.5 % of
   cases, and how often is a true one? Next to it a bootstrap in blocks of a week, which the project had before.
2. A year of weekly retrains: each week a new candidate meets the champion on the last seventeen weeks. How often does
   luck replace the champion, and how soon does a better challenger?
"""

import datetime as dt
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.signal import lfilter
from scipy.stats import ttest_1samp

from tutelage.files import write_json
from tutelage.judge.comparison import cosine_error, gain_over, one_sided_p
from tutelage.judge.promotion import allowed_p

WEEK_HOURS = 168
RESULTS = Path(__file__).parent / "results" / "promotion.json"
TEST_WEEKS, YEAR_WEEKS, YEARS = 17, 52, 1000
WEEKLY_SPREAD = 0.004
"""Standard deviation of two networks' weekly difference, a share of the loss: household 24 h has 0.2 to 0.4 %."""
MONTH_WEEKS = 4.345
BETTER = (0.01, 0.02, 0.03)
WITHIN_WEEKS = (1, 4, 12)
VERDICTS, BOOTSTRAPPED = 2000, 200
"""Simulated verdicts, and of how many the bootstrap is computed: it takes a thousand times as long."""
VERDICT_DAYS = (30, 60, 120, 365)
OVERLAP_HOURS, MEMORY_HOURS = 24, 48
HOURS_A_MONTH = 730

Replaces = Callable[[np.ndarray], bool]
"""Whether a candidate with these weekly advantages replaces the champion."""


def by_the_rule(advantage: np.ndarray) -> bool:
    """The product's rule, a week after the last comparison."""
    error, freedom = cosine_error(advantage)
    return one_sided_p(float(advantage.mean()), error, freedom) <= allowed_p(dt.timedelta(weeks=1))


def by_a_t_test(advantage: np.ndarray) -> bool:
    """A t-test at the level 2.5 %, however often: for comparison."""
    return bool(ttest_1samp(advantage, 0, alternative="greater").pvalue <= 0.025)


def performance(rng: np.random.Generator, weeks: int, *, memory: float, months: float) -> np.ndarray:
    """A network's weekly advantage over the average one, a share of the loss."""
    noise = rng.normal(size=weeks)
    for week in range(1, weeks):
        noise[week] = memory * noise[week - 1] + np.sqrt(1 - memory**2) * noise[week]
    month = (np.arange(weeks) / MONTH_WEEKS).astype(int)
    scale = WEEKLY_SPREAD / np.sqrt(2 * (1 + months**2))
    return scale * (noise + months * rng.normal(size=month[-1] + 1)[month])


def replacements(
    replaces: Replaces, seed: int, *, memory: float, months: float, better: float = 0.0, weeks: int = YEAR_WEEKS
) -> list[int]:
    """The weeks in which a champion is replaced; candidates are better than the first one by a share of the loss."""
    rng = np.random.default_rng(seed)
    champion = performance(rng, TEST_WEEKS + weeks, memory=memory, months=months)
    replaced = []
    for week in range(weeks):
        candidate = performance(rng, TEST_WEEKS + weeks, memory=memory, months=months) + better
        seen = slice(week + 1, week + 1 + TEST_WEEKS)
        if replaces(candidate[seen] - champion[seen]):
            champion = candidate
            replaced.append(week)
    return replaced


def measure(memory: float, months: float) -> dict[str, object]:
    """A row of the table."""

    def a_year(replaces: Replaces) -> float:
        every = (replacements(replaces, seed, memory=memory, months=months) for seed in range(YEARS))
        return float(np.mean([len(weeks) for weeks in every]))

    def within(better: float) -> dict[int, float]:
        given = {"memory": memory, "months": months, "better": better, "weeks": max(WITHIN_WEEKS)}
        first = [(replacements(by_the_rule, seed, **given) or [YEAR_WEEKS])[0] for seed in range(YEARS // 5)]
        return {weeks: float(np.mean([week < weeks for week in first])) for weeks in WITHIN_WEEKS}

    return {
        "memory": memory,
        "months": months,
        "null_promotions_a_year": a_year(by_the_rule),
        "null_promotions_a_year_by_a_t_test": a_year(by_a_t_test),
        "promoted_within_weeks": {f"{better:.0%} better": within(better) for better in BETTER},
    }


def hourly_differences(rng: np.random.Generator, days: int, *, memory: bool, months: float) -> np.ndarray:
    """The difference between two equal networks' losses at each hour, a share of the loss.

    Its weekly means have about the standard deviation WEEKLY_SPREAD, and `months` times that by month.
    """
    hours, before = 24 * days, 24 * 30
    noise = np.convolve(rng.normal(size=hours + before), np.ones(OVERLAP_HOURS) / OVERLAP_HOURS, mode="same")
    if memory:
        share = np.exp(-1 / MEMORY_HOURS)
        noise = lfilter([1 - share], [1, -share], noise)
    # A mean over a week of a sum of shocks that each count fully: the shocks' own mean.
    noise = noise[before:] * WEEKLY_SPREAD * WEEK_HOURS**0.5
    month = ((np.arange(hours) + rng.integers(HOURS_A_MONTH)) // HOURS_A_MONTH).astype(int)
    return noise + months * WEEKLY_SPREAD * rng.normal(size=month[-1] + 1)[month]


def claimed_by_bootstrap(differences: np.ndarray, rng: np.random.Generator, repetitions: int = 400) -> bool:
    """Whether 97.5 % of the resamples in circular blocks of a week have a gain."""
    hours = len(differences)
    block = min(WEEK_HOURS, hours // 4)
    sums = np.cumsum(np.concatenate([[0.0], differences, differences]))
    of_blocks = (sums[block : hours + block] - sums[:hours]) / block
    means = of_blocks[rng.integers(hours, size=(repetitions, hours // block))].mean(axis=1)
    return bool(np.quantile(means, 0.025) > 0)


def measure_verdicts(days: int, *, memory: bool, months: float) -> dict[str, object]:
    """A row of the first table: shares of claims with no true gain, and with one of each size in BETTER."""
    rng, hour = np.random.default_rng(days), np.arange(24 * days)

    def claims(better: float) -> float:
        def is_claimed() -> bool:
            losses = 1 - better - hourly_differences(rng, days, memory=memory, months=months)
            return gain_over(losses, np.ones(len(hour)), hour).low > 0

        return float(np.mean([is_claimed() for _ in range(VERDICTS)]))

    bootstrapped = [
        claimed_by_bootstrap(hourly_differences(rng, days, memory=memory, months=months), rng)
        for _ in range(BOOTSTRAPPED)
    ]
    return {
        "days": days,
        "memory_hours": MEMORY_HOURS if memory else 0,
        "months": months,
        "size_at_nominal_2_5": claims(0.0),
        "size_of_a_bootstrap": float(np.mean(bootstrapped)),
        "power": {f"{better:.1%} better": claims(better) for better in (WEEKLY_SPREAD, *BETTER)},
    }


def main() -> None:
    """Print and write both tables."""
    verdicts, rows = [], []
    for days, memory, months in itertools.product(VERDICT_DAYS, (False, True), (0.0, 1.0)):
        verdicts.append(measure_verdicts(days, memory=memory, months=months))
        print(json.dumps(verdicts[-1]))
    for memory_share, months in itertools.product((0.0, 0.3), (0.0, 1.0)):
        rows.append(measure(memory_share, months))
        print(json.dumps(rows[-1]))
    settings = {"years": YEARS, "test_weeks": TEST_WEEKS, "weekly_spread": WEEKLY_SPREAD, "verdicts": VERDICTS}
    write_json(RESULTS, settings | {"rows": rows, "one_verdict": verdicts})


if __name__ == "__main__":
    main()
