import datetime as dt
import itertools

import pytest
import torch

from tests.tutelage.builders import START, synthetic_panel
from tutelage.data.folds import rolling_folds
from tutelage.data.windows import Parts, window_origins
from tutelage.errors import DataError

DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
DAYS = 60
LOOKBACK, HORIZON = 30, 6


def folds_of(**changes: object) -> list[Parts]:
    values = {
        "folds": 3,
        "score_days": 6,
        "test_days": 10,
        "history_days": 48,
        "train_days": None,
        "validation_share": 0.2,
    }
    return rolling_folds(START, START + DAYS * DAY, **(values | changes))  # type: ignore[arg-type]


def test_rolling_folds__score_the_end_of_the_history_once() -> None:
    folds = folds_of()
    first = START + (50 - 18) * DAY
    assert [(fold.test.start, fold.test.end) for fold in folds] == [
        (first + 6 * fold * DAY, first + 6 * (fold + 1) * DAY) for fold in range(3)
    ]


def test_rolling_folds__learn_from_all_of_the_history_before() -> None:
    folds = folds_of()
    assert {fold.train.start for fold in folds} == {START + 2 * DAY}
    assert [fold.test.start - fold.train.start for fold in folds] == [30 * DAY, 36 * DAY, 42 * DAY]
    assert [(fold.test.start - fold.validation.start) / HOUR for fold in folds] == [144, 173, 202]


def test_rolling_folds__learn_from_the_last_train_days() -> None:
    folds = folds_of(train_days=20)
    assert [fold.test.start - fold.train.start for fold in folds] == [20 * DAY] * 3


def test_rolling_folds__never_reach_the_test_part() -> None:
    for folds in (folds_of(), folds_of(history_days=None), folds_of(train_days=30, folds=1)):
        assert max(fold.test.end for fold in folds) == START + (DAYS - 10) * DAY


def test_rolling_folds__all_the_history_is_whole_days() -> None:
    early = START - dt.timedelta(hours=7)
    [fold] = rolling_folds(
        early,
        START + 30 * DAY,
        folds=1,
        score_days=5,
        test_days=5,
        history_days=None,
        train_days=None,
        validation_share=0.25,
    )
    assert fold.train.start == START


def test_rolling_folds__targets_of_two_parts_share_no_hour() -> None:
    panel = synthetic_panel([24 * DAYS])
    for fold in folds_of():
        parts = [
            window_origins(panel, span, lookback=LOOKBACK, horizon=HORIZON, start=fold.train.start)
            for span in (fold.train, fold.validation, fold.test)
        ]
        for before, after in itertools.pairwise(parts):
            assert int(panel.step[after[0]] - panel.step[before[-1]]) == HORIZON
        hours = [set(panel.step[origins[:, None] + torch.arange(HORIZON)].flatten().tolist()) for origins in parts]
        assert not hours[0] & hours[1]
        assert not hours[1] & hours[2]


def test_rolling_folds__no_window_is_scored_twice() -> None:
    panel = synthetic_panel([24 * DAYS])
    scored = [
        window_origins(panel, fold.test, lookback=LOOKBACK, horizon=HORIZON, start=fold.train.start).tolist()
        for fold in folds_of()
    ]
    once = set(itertools.chain(*scored))
    assert len(once) == sum(map(len, scored)) == 3 * (6 * 24 - HORIZON + 1)


@pytest.mark.parametrize(
    "changes", [{"history_days": 51}, {"folds": 8}, {"train_days": 31}, {"history_days": None, "test_days": 59}]
)
def test_rolling_folds__refuses_a_history_that_is_too_short(changes: dict[str, object]) -> None:
    with pytest.raises(DataError, match="the history is too short for the folds"):
        folds_of(**changes)
