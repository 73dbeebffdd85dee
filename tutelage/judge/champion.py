"""Comparison of a candidate with the current champion, on windows that neither has seen."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool

from tutelage.data.windows import Span, window_origins
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.teachers import forecast_exported
from tutelage.forecasts import Forecasts, crps
from tutelage.judge.comparison import Gain, gain_over
from tutelage.judge.promotion import LEAST_ISSUE_TIMES
from tutelage.judge.verdict import actual_values
from tutelage.model.inference import Student


@dataclass(frozen=True)
class Champion:
    """The current champion: the registered student, and the student that was evaluated before its refit.

    They are the same without a refit.
    """

    version: str
    registered: Student
    evaluated: Student


@dataclass(frozen=True)
class Meeting:
    """A candidate's gain over the champion, and the windows and the champion's student that it was computed on.

    as_registered: true for the registered student, false for the one that was evaluated before its refit
    windows: the test windows of the comparison, as a mask; forecasts: the champion's of these windows
    """

    gain: Gain
    as_registered: bool
    windows: Bool[np.ndarray, " test"]
    forecasts: Forecasts


def meet_champion(
    champion: Champion,
    candidate: Forecasts,
    dataset: WindowDataset,
    *,
    validation_end: dt.datetime,
    test_end: dt.datetime,
) -> Meeting | None:
    """Compare a candidate's forecasts of the test part with the champion's; None: no window to compare on.

    Only windows after the data that both have seen count. A refit champion has seen nearly all data: with fewer than
    LEAST_ISSUE_TIMES, which could decide nothing, the student that was evaluated before the refit is compared, as for
    the candidate.
    """
    hour, test = dataset.panel.hour, dataset.test
    everything = Span(dt.datetime(1970, 1, 1, tzinfo=dt.UTC), test_end)
    for student in (champion.registered, champion.evaluated):
        seen = max(student.trained_until, validation_end)
        lookback = student.complete_hours
        possible = window_origins(dataset.panel, everything, lookback=lookback, horizon=dataset.horizon)
        usable = (hour[test] >= int(seen.timestamp() // 3600)) & torch.isin(test, possible.to(test.device))
        issue_times = hour[test[usable]].unique()
        if student.card["horizon_hours"] != dataset.horizon or not usable.any():
            continue
        if len(issue_times) >= LEAST_ISSUE_TIMES or student is champion.evaluated:
            windows = usable.cpu().numpy()
            forecasts = forecast_exported(student, dataset, test[usable])
            actual = actual_values(dataset, test[usable])
            losses, reference = (crps(each, actual).mean(axis=1) for each in (candidate.at(windows), forecasts))
            issued = hour[test[usable]].cpu().numpy()
            gain = gain_over(losses, reference, issued)
            return Meeting(gain, student is champion.registered, windows, forecasts)
    return None
