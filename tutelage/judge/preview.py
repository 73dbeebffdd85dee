"""A dataset before anything is trained: what simple forecasts make of it, and what lies below the hour."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from tutelage.distil.dataset import WindowDataset
from tutelage.forecasts import Contender
from tutelage.judge.metrics import Scores
from tutelage.judge.verdict import score_baselines


@dataclass(frozen=True)
class Preview:
    """What is known of a dataset without a training.

    scores: of the simple forecasts on the validation part, fitted on the training part
    within_steps: the share of the target's variance in the history that lies within its hours; None: no readings there
    """

    scores: Mapping[Contender, Scores]
    within_steps: float | None


def preview(dataset: WindowDataset) -> Preview:
    """Look at the history before the test part; the test part itself is not looked at."""
    held_out = replace(dataset, test=dataset.validation, validation=dataset.validation[:0])
    scores = {name: each.scores for name, each in score_baselines(held_out).items()}
    return Preview(scores, _within_hours(dataset))


def _within_hours(dataset: WindowDataset) -> float | None:
    """The share of variance within hours, of hours of the history that have detail."""
    panel = dataset.panel
    last = panel.step[dataset.validation].max()
    there = (panel.step >= dataset.first_step) & (panel.step <= last) & panel.observed[:, 0].isfinite()
    there &= (panel.minutes != 0).any(dim=1)
    if not bool(there.any()):
        return None
    within = panel.minutes[there].double().square().mean()
    between = torch.var(panel.observed[there, 0].double(), correction=0)
    return float(within / (within + between))
