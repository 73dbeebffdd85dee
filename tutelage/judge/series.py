"""Scores series by series: where a forecaster of many is worse than a simple forecast."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tutelage.distil.dataset import WindowDataset


@dataclass(frozen=True)
class SeriesScore:
    """A series' mean CRPS on the test part, of the chosen network and of the floor, in the target's unit.

    windows: number of its windows there
    """

    series: str
    windows: int
    crps: float
    floor_crps: float

    @property
    def against_floor(self) -> float:
        """The network's CRPS as a multiple of the floor's."""
        return self.crps / self.floor_crps if self.floor_crps else float("inf") if self.crps else 1.0


def score_series(
    dataset: WindowDataset, chosen: Float[np.ndarray, "students test"], floor: Float[np.ndarray, "one test"]
) -> list[SeriesScore]:
    """The scores of each series of a panel of several, worst first; none of a panel of one.

    chosen, floor: loss of each window of the test part, in units of its series' size
    """
    if dataset.panel.sizes is None:
        return []
    names, size = np.array(dataset.panel.names_at(dataset.test)), dataset.panel.size_at(dataset.test)
    scores = []
    for name in dict.fromkeys(names.tolist()):
        of_series = names == name
        crps, floor_crps = (float((losses * size)[:, of_series].mean()) for losses in (chosen, floor))
        scores.append(SeriesScore(name, int(of_series.sum()), crps, floor_crps))
    return sorted(scores, key=lambda score: -score.against_floor)
