"""Other sites: windows of their series, on the scale of this site, that teachers and students can learn from.

A new site has a few weeks of data, a fleet has years. Every other series is shifted and stretched to the mean and the
standard deviation of this site's training part, so that scalers, bins and losses apply to it unchanged.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from tutelage.data.grid import HOUR
from tutelage.data.windows import Panel, Span, thinned, window_origins
from tutelage.distil.dataset import WindowDataset
from tutelage.errors import DataError, SpecError

LEAST_HOURS = 14 * 24
"""A series with fewer hours before the end of the history is left out."""
MOST_WINDOWS = 2000
"""Of more windows, those of every k-th hour are taken, so that all hours of the day stay equally frequent."""


def add_sites(dataset: WindowDataset, others: Panel, *, until_step: int, most: int = MOST_WINDOWS) -> WindowDataset:
    """The dataset with windows of other sites as its transfer set.

    others: their panel, with as many observed and known columns as the dataset's, the target first
    until_step: no value from this step on is used: the end of the history
    most: the greatest number of windows

    Raises SpecError where the steps differ, or the columns in number, and DataError where no series has enough hours.
    """
    panel = dataset.panel
    if others.grid.step != panel.grid.step:
        raise SpecError(f"other sites: their steps are of {others.grid.name}, and this site's of {panel.grid.name}")
    for kind in ("observed", "known"):
        here, there = (getattr(each, kind).shape[1] for each in (panel, others))
        if here != there:
            raise SpecError(f"other sites: they have {there} {kind} columns, and this site has {here}")
    rescaled = _rescaled(others, dataset, until_step)
    rows = len(rescaled.step)
    joined = replace(
        panel,
        observed=torch.cat([panel.observed, rescaled.observed]),
        # A window of other sites has no gaps.
        filled=torch.cat([panel.seen, rescaled.observed]),
        known=torch.cat([panel.known, rescaled.known]),
        auxiliary=torch.cat([panel.auxiliary, panel.auxiliary.new_full((rows, panel.auxiliary.shape[1]), torch.nan)]),
        minutes=torch.cat([panel.minutes, panel.minutes.new_full((rows, panel.minutes.shape[1]), torch.nan)]),
        series=torch.cat([panel.series, rescaled.series + int(panel.series.max()) + 1]),
        step=torch.cat([panel.step, rescaled.step]),
    )
    origins = _thinned(rescaled, dataset, most) + len(panel.step)
    return replace(dataset, panel=joined, transfer=origins.to(panel.step.device))


def _rescaled(others: Panel, dataset: WindowDataset, until_step: int) -> Panel:
    """The other series before a step, on this site's scale, on this site's device."""
    device, scaler = dataset.panel.step.device, dataset.scalers.observed
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in (scaler.mean, scaler.std))
    chosen, observed = [], []
    for number in others.series.unique():
        rows = torch.nonzero((others.series == number) & (others.step < until_step)).squeeze(-1)
        values = others.observed[rows]
        if int(values.isfinite().all(dim=1).sum()) * others.grid.step < LEAST_HOURS * HOUR:
            continue
        numbers = values.double().numpy()
        level, spread = np.nanmean(numbers, axis=0), np.nanstd(numbers, axis=0)
        if not (spread > 0).all():
            continue
        standardised = (values - torch.from_numpy(level).float()) / torch.from_numpy(spread).float()
        chosen.append(rows)
        observed.append(standardised * std + mean)
    if not chosen:
        raise DataError(
            f"other sites: no series has {LEAST_HOURS} hours of changing values before the end of the history"
        )
    rows = torch.cat(chosen)
    return replace(
        others,
        observed=torch.cat(observed),
        known=others.known[rows],
        auxiliary=others.auxiliary[rows],
        minutes=others.minutes[rows],
        series=others.series[rows],
        step=others.step[rows],
        filled=None,
    ).to(device)


def _thinned(others: Panel, dataset: WindowDataset, most: int) -> Int64[Tensor, " windows"]:
    """Origins of the other series' windows, at most `most`, with another phase for each series."""
    first, last = int(others.step.min()), int(others.step.max())
    span = Span(others.grid.time(first), others.grid.time(last + 1))
    origins = window_origins(others, span, lookback=dataset.lookback, horizon=dataset.horizon)
    return thinned(others, origins, most)
