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
from tutelage.judge.promotion import LEAST_WEEKS
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
    weeks: how many weeks the issue times of these windows make up
    """

    gain: Gain
    as_registered: bool
    windows: Bool[np.ndarray, " test"]
    forecasts: Forecasts
    weeks: float


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
    LEAST_WEEKS of issue times, which could decide nothing, the student that was evaluated before the refit is
    compared, as for the candidate. A champion with other steps, or another horizon, can't be compared.
    """
    step, test, grid = dataset.panel.step, dataset.test, dataset.panel.grid
    everything = Span(dt.datetime(1970, 1, 1, tzinfo=dt.UTC), test_end)
    for student in (champion.registered, champion.evaluated):
        seen = max(student.trained_until, validation_end)
        if student.grid != grid or student.card["horizon_hours"] != dataset.horizon_hours:
            continue
        lookback = grid.steps(student.complete_hours)
        possible = window_origins(dataset.panel, everything, lookback=lookback, horizon=dataset.horizon)
        usable = (step[test] >= grid.index(seen)) & torch.isin(test, possible.to(test.device))
        weeks = len(step[test[usable]].unique()) / (7 * grid.of_day)
        if not usable.any():
            continue
        if weeks >= LEAST_WEEKS or student is champion.evaluated:
            windows = usable.cpu().numpy()
            forecasts = forecast_exported(student, dataset, test[usable])
            actual = actual_values(dataset, test[usable])
            losses, reference = (crps(each, actual).mean(axis=1) for each in (candidate.at(windows), forecasts))
            issued = step[test[usable]].cpu().numpy()
            gain = gain_over(losses, reference, issued)
            return Meeting(gain, student is champion.registered, windows, forecasts, weeks)
    return None
