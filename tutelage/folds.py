"""Rolling origins inside a history: each fold trains before, stops early in between, and is scored on what follows.

The test part lies behind all of them. What a recipe is chosen by must not be what it is judged by.
"""

import datetime as dt

from tutelage.errors import DataError
from tutelage.windows import Parts, split

DAY = dt.timedelta(days=1)


def rolling_folds(
    start: dt.datetime,
    end: dt.datetime,
    *,
    folds: int,
    score_days: int,
    test_days: int,
    history_days: int | None,
    train_days: int | None,
    validation_share: float,
) -> list[Parts]:
    """Cut the history before the test part of data from `start` to `end` into folds, the earliest first.

    The history is the `history_days` (None: all whole days since `start`) before the last `test_days`. Its last
    `folds` × `score_days` are scored, each stretch once. A fold learns from what lies before its stretch: the last
    `train_days` (None: all of the history so far), the last `validation_share` of them for early stopping. Its parts
    are those of `windows.split`, the scored stretch in place of the test part: as there, a window belongs to a part
    only if all its hours do, so issue times of two parts stand lookback + horizon apart.

    Raises DataError where the data are shorter than the history, or the history than what the first fold needs.
    """
    history_end = end - test_days * DAY
    available = (history_end - start) // DAY
    days = available if history_days is None else history_days
    scored = folds * score_days
    # A fold that learns from a single day could not even hold a validation part.
    least = scored + (2 if train_days is None else train_days)
    if days > available or days < least:
        raise DataError(
            f"the history is too short for the folds: {folds} x {score_days} scored days and what the first learns "
            f"from take {least}, and {history_days or 'all'} days of history are asked for; from "
            f"{start:%Y-%m-%d %H:%M} to {history_end:%Y-%m-%d %H:%M}, where the {test_days} days of the test part "
            f"begin, there are {max(available, 0)}"
        )
    found = []
    for fold in range(folds):
        before = days - (folds - fold) * score_days
        found.append(
            split(
                history_end - (folds - 1 - fold) * score_days * DAY,
                start=history_end - days * DAY,
                history_days=before if train_days is None else train_days,
                validation_share=validation_share,
                test_days=score_days,
            )
        )
    return found
