"""The verdict: scores of all contenders, gains with intervals, the choice of student or twin, and the conclusion."""

import datetime as dt
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int, Int64
from torch import Tensor

from tutelage.distil.base import forecast_simple, forecast_with_base, join_bases
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.soft_labels import SoftLabels, label_forecasts
from tutelage.forecasts import Contender, Forecasts
from tutelage.judge.baselines import BASELINES, forecast_baselines
from tutelage.judge.comparison import Floor, Gain, Gains, Losses, gain_over, losses_by_time
from tutelage.judge.metrics import ScoredForecasts, score_members
from tutelage.model.base import Base
from tutelage.model.networks import Forecaster

REGISTRABLE = (Contender.STUDENT, Contender.TWIN)
"""The contenders one of which may be registered; the last one wins a tie."""


def actual_values(dataset: WindowDataset, origins: Int64[Tensor, " windows"]) -> Float[np.ndarray, "windows horizon"]:
    """The actual values, in the target's unit."""
    return dataset.truth(origins).cpu().numpy().astype(np.float64)


def hours_of_day(dataset: WindowDataset, origins: Int64[Tensor, " windows"]) -> Int[np.ndarray, "windows horizon"]:
    """The hour of the day of each forecast hour, by the local clock: the first of the known columns."""
    return dataset.student_inputs(origins)[1][..., 0].cpu().numpy().astype(int)


def score_contenders(
    dataset: WindowDataset,
    students: Mapping[Contender, Forecaster],
    teacher: SoftLabels,
    *,
    bases: Mapping[Contender, Base] = MappingProxyType({}),
) -> dict[Contender, ScoredForecasts]:
    """Scores on the test part of students and their teacher.

    students: one network per contender, with one member per replicate; bases: what each is averaged with
    teacher: its soft labels of the test part
    """
    actual = actual_values(dataset, dataset.test)
    simple = _simple_of(bases, dataset)
    scored = {
        name: score_members(
            forecast_with_base(network, dataset, dataset.test, bases.get(name), simple.get(name)), actual
        )
        for name, network in students.items()
    }
    scored[Contender.TEACHER] = score_members([label_forecasts(teacher, dataset.edges())], actual)
    return scored


def _simple_of(bases: Mapping[Contender, Base], dataset: WindowDataset) -> dict[Contender, dict[Contender, Forecasts]]:
    """The simple forecasts of the test part by contender: twins' have not learned from other sites, the others' may."""
    simple: dict[Contender, dict[Contender, Forecasts]] = {}
    before: dict[Contender, Forecasts] = {}
    for alike in ([name for name in bases if name is Contender.TWIN], [n for n in bases if n is not Contender.TWIN]):
        if alike:
            before = forecast_simple(join_bases(bases[name] for name in alike), dataset, dataset.test, before)
            simple |= dict.fromkeys(alike, before)
    return simple


def score_baselines(dataset: WindowDataset, names: Iterable[Contender] = BASELINES) -> dict[Contender, ScoredForecasts]:
    """Scores on the test part of the simple forecasts."""
    actual = actual_values(dataset, dataset.test)
    forecasts = forecast_baselines(dataset, dataset.test, names)
    return {name: score_members([each], actual) for name, each in forecasts.items()}


def choose(crps_by_name: Mapping[Contender, float]) -> Contender:
    """Student or twin, by CRPS on the held-out blocks; the twin wins a tie, because it needs no teacher."""
    better = crps_by_name[Contender.STUDENT] < crps_by_name[Contender.TWIN]
    return Contender.STUDENT if better else Contender.TWIN


def find_gains(dataset: WindowDataset, scored: Mapping[Contender, ScoredForecasts]) -> Gains:
    """The students' gains on the test part, with intervals."""
    issue_hour = dataset.panel.step[dataset.test].cpu().numpy()
    student, twin = (scored[name].losses for name in REGISTRABLE)
    unprivileged = scored.get(Contender.UNPRIVILEGED)
    return Gains(
        over_twin=gain_over(student, twin, issue_hour),
        over_unprivileged=gain_over(student, unprivileged.losses, issue_hour) if unprivileged else None,
        by_replicate=(1 - student.mean(axis=1) / twin.mean(axis=1)).tolist(),
    )


def find_losses(dataset: WindowDataset, scored: Mapping[Contender, ScoredForecasts]) -> Losses:
    """CRPS on the test part by issue time, of all contenders."""
    issue_step = dataset.panel.step[dataset.test].cpu().numpy()
    return losses_by_time({name: each.losses for name, each in scored.items()}, issue_step)


def find_floor(dataset: WindowDataset, scored: Mapping[Contender, ScoredForecasts]) -> Floor:
    """The floor of a test part: the simple forecast with the lowest CRPS there, the hardest to beat."""
    best = min((name for name in BASELINES if name in scored), key=lambda name: scored[name].scores.crps)
    issue_hour = dataset.panel.step[dataset.test].cpu().numpy()
    chosen, baseline = (scored[name].losses for name in (Contender.CHOSEN, best))
    return Floor(best, gain_over(chosen, baseline, issue_hour))


def conclude_floor(floor: Floor) -> str:
    """Is the chosen network better than everything simple? It outranks every gain over a twin."""
    if floor.is_missed:
        return f"worse than {floor.baseline.label}"
    if floor.is_beaten:
        return "better than every simple forecast"
    degree = "no" if floor.bars_promotion else "not significantly"
    return f"{degree} better than {floor.baseline.label}"


def floor_sentence(chosen: Contender, floor: Floor) -> str:
    """The chosen network against the best simple forecast, with the interval."""
    against = gain_text(floor.gain, f"that of {floor.baseline.label}")
    return f"The chosen {chosen.label}'s CRPS is {against}, the best of the simple forecasts."


def conclude(over_twin: Gain, over_unprivileged: Gain | None) -> str:
    """Were the privileged data worth it? A short conclusion from the intervals of the gains.

    The gain over twins measures the effect of a teacher, privileged or not. The gain over students of unprivileged
    teachers measures the effect of the privileged data; only harm counts where the first gain is not significant.
    """
    if over_twin.high < 0:
        return "the teacher did harm"
    if over_twin.low <= 0:
        if over_unprivileged is not None and over_unprivileged.high < 0:
            return "no significant gain from the teacher, and its privileged data did harm"
        return "inconclusive: no significant gain from the teacher"
    if over_unprivileged is None:
        return "the teacher was worth it"
    if over_unprivileged.high < 0:
        return "the teacher was worth it, but its privileged data did harm"
    if over_unprivileged.low <= 0:
        return "the teacher was worth it; no significant gain from its privileged data"
    return "the privileged data were worth it"


def percent(share: float) -> str:
    """A share in per cent with one decimal: 1.1, or −0.1 with a typographic minus sign."""
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def interval_text(low: float, high: float) -> str:
    """An interval of shares in per cent: `−0.1 … 2.6 %`."""
    return f"{percent(low)} … {percent(high)} %"


def gain_text(gain: Gain, reference: str) -> str:
    """A gain in words: `1.1 % lower than the twins' (95 % CI −0.1 … 2.6 %)`."""
    if gain.estimate >= 0:
        return f"{percent(gain.estimate)} % lower than {reference} (95 % CI {interval_text(gain.low, gain.high)})"
    # The interval is that of the figure shown: how much higher.
    return f"{percent(-gain.estimate)} % higher than {reference} (95 % CI {interval_text(-gain.high, -gain.low)})"


def gains_sentence(gains: Gains, *, test_start: dt.datetime, test_end: dt.datetime) -> str:
    """The gains with their intervals, and the days of the test part, as a sentence."""
    over_twin = gain_text(gains.over_twin, "their twins'")
    text = f"The students' CRPS is {over_twin}"
    if gains.over_unprivileged is not None:
        text += f" and {gain_text(gains.over_unprivileged, 'that of students of unprivileged teachers')}"
    text += f", on the {(test_end - test_start).days} days from {test_start:%Y-%m-%d}"
    if len(gains.by_replicate) > 1:
        text += f" (mean of {len(gains.by_replicate)} replicates, {_by_replicate(gains)})"
    return text + "."


def _by_replicate(gains: Gains) -> str:
    """The range over replicates, with the sign of the figure that it belongs to: how much lower, or how much higher."""
    shares = sorted(gains.by_replicate if gains.over_twin.estimate >= 0 else [-gain for gain in gains.by_replicate])
    direction = "lower" if gains.over_twin.estimate >= 0 else "higher"
    return f"each {interval_text(shares[0], shares[-1])} {direction} than its twin's"
