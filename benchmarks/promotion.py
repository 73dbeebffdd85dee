"""How often luck replaces a champion, and how soon a better challenger does: weekly retrains, simulated for years.

    .venv/bin/python -m benchmarks.promotion

Networks' weekly losses differ by noise with a memory of days, and by effects that last for a month. Each week a new
candidate meets the champion on the last seventeen weeks, as a retrain's test part has them.
"""

import datetime as dt
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import ttest_1samp

from tutelage.files import write_json
from tutelage.judge.promotion import allowed_p, cosine_p

RESULTS = Path(__file__).parent / "results" / "promotion.json"
TEST_WEEKS, YEAR_WEEKS, YEARS = 17, 52, 1000
WEEKLY_SPREAD = 0.004
"""Standard deviation of two networks' weekly difference, a share of the loss: household 24 h has 0.2 to 0.4 %."""
MONTH_WEEKS = 4.345
BETTER = (0.01, 0.02, 0.03)
WITHIN_WEEKS = (1, 4, 12)

Replaces = Callable[[np.ndarray], bool]
"""Whether a candidate with these weekly advantages replaces the champion."""


def by_the_rule(advantage: np.ndarray) -> bool:
    """The product's rule, a week after the last comparison."""
    return cosine_p(advantage) <= allowed_p(dt.timedelta(weeks=1))


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


def main() -> None:
    """Print and write the table."""
    rows = []
    for memory, months in itertools.product((0.0, 0.3), (0.0, 1.0)):
        rows.append(measure(memory, months))
        print(json.dumps(rows[-1]))
    write_json(RESULTS, {"years": YEARS, "test_weeks": TEST_WEEKS, "weekly_spread": WEEKLY_SPREAD, "rows": rows})


if __name__ == "__main__":
    main()
