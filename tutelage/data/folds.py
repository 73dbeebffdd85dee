"""Rolling origins inside a history: each fold trains, then validates, then is scored on three successive periods.

The test part comes after all folds: a recipe must not be evaluated on the data that it was chosen by.
"""

import datetime as dt

from tutelage.data.grid import DAY, HOURLY, Grid
from tutelage.data.windows import Parts, split
from tutelage.errors import DataError


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
    grid: Grid = HOURLY,
) -> list[Parts]:
    """Cut the history before the test part of data from `start` to `end` into folds, the earliest first.

    The history is the `history_days` (None: all whole days since `start`) before the last `test_days`. Its last
    `folds` × `score_days` are the scored periods, one for each fold. A fold learns from the `train_days` before its
    scored period (None: all of the history before it); the last `validation_share` of them are for early stopping. Its
    parts are those of `windows.split`, with the scored period in place of the test part: a window belongs to a part
    only if all its hours do, so issue times in two parts are at least lookback + horizon apart.

    Raises DataError where the data are shorter than the history, or the history is too short for the first fold.
    """
    history_end = end - test_days * DAY
    available = (history_end - start) // DAY
    days = available if history_days is None else history_days
    scored = folds * score_days
    # A fold that learns from a single day could not even hold a validation part.
    least = scored + (2 if train_days is None else train_days)
    if days > available or days < least:
        raise DataError(
            f"the history is too short for the folds: {folds} x {score_days} scored days and the training "
            f"days of the first fold need {least} days, and {history_days or 'all'} are requested; from "
            f"{start:%Y-%m-%d %H:%M} to {history_end:%Y-%m-%d %H:%M}, where the {test_days} days of the test part "
            f"begin, there are {max(available, 0)}"
        )
    cut = []
    for fold in range(folds):
        before = days - (folds - fold) * score_days
        cut.append(
            split(
                history_end - (folds - 1 - fold) * score_days * DAY,
                start=history_end - days * DAY,
                history_days=before if train_days is None else train_days,
                validation_share=validation_share,
                test_days=score_days,
                grid=grid,
            )
        )
    return cut
