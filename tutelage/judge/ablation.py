"""What each privilege of the teachers brought: the recipe without it, a placebo, and shorter histories.

Each is a retrain of its own with the same parts of the history, so that all forecast the same windows of the test part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.grid import DAY
from tutelage.distil.recipe import NO_PRETRAINED, Recipe
from tutelage.forecasts import Contender
from tutelage.judge.comparison import LEVEL, NEGLIGIBLE, Gain, Losses, gain_between

PLACEBO = "placebo"
"""The variant whose teachers see the privileged values of other windows."""
LEAST_DAYS = 10
"""The shortest history that a retrain takes."""


class Privilege(StrEnum):
    """A kind of data that only the teachers have."""

    FUTURE = "future"
    MINUTES = "minutes"
    AUXILIARY = "auxiliary"
    OTHER_SITES = "other_sites"
    PRETRAINED = "pretrained"


def privileges(recipe: Recipe) -> list[Privilege]:
    """What the teachers of a recipe have and its student doesn't."""
    teacher, views = recipe.teacher, recipe.teacher.every_view
    had = {
        Privilege.FUTURE: any(each.sees_target_future for each in views),
        Privilege.MINUTES: any(each.minutes_hours for each in views),
        Privilege.AUXILIARY: any(each.auxiliary or each.sees_auxiliary_future for each in views),
        Privilege.OTHER_SITES: teacher.other_sites is not None,
        Privilege.PRETRAINED: teacher.pretrained_name is not None,
    }
    return [privilege for privilege, is_there in had.items() if is_there]


def without(recipe: Recipe, privilege: Privilege) -> Recipe:
    """The recipe whose teachers lack one privilege; as many networks teach as before."""
    if privilege is Privilege.OTHER_SITES:
        return recipe.override({"teacher.other_sites": None, "distillation.transfer": False})
    if privilege is Privilege.PRETRAINED:
        return recipe.override(NO_PRETRAINED)
    left = recipe.without_views({privilege})
    networks = recipe.teacher.ensemble_size * len(recipe.teacher.every_view)
    return left.override({"teacher.ensemble_size": max(1, round(networks / len(left.teacher.every_view)))})


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe without each of its privileges, by privilege, and the placebo where teachers have views."""
    had = privileges(recipe)
    lacking: dict[str, Recipe] = {str(privilege): without(recipe, privilege) for privilege in had}
    has_views = any(views.any for views in recipe.teacher.every_view)
    return lacking | ({PLACEBO: recipe.placebo} if has_views else {})


@dataclass(frozen=True)
class WithoutRow:
    """The recipe without one privilege, or its placebo; CRPS in the target's unit.

    teacher_gain, student_gain: of the whole recipe's teachers and students over these, as shares: what it brought
    is_gain, is_harm: whether the students' gain, or loss, is more than luck, among as many comparisons as there are
    """

    name: str
    teacher_crps: float
    student_crps: float
    teacher_gain: Gain
    student_gain: Gain
    is_gain: bool
    is_harm: bool

    @property
    def label(self) -> str:
        """Its name in tables and sentences."""
        return self.name.replace("_", " ")


def rows_without(whole: Losses, lacking: Mapping[str, Losses]) -> list[WithoutRow]:
    """A row for each variant. An interval is that of a single comparison; a claim has to hold among all of them.

    Source of the latter: Bonferroni's bound.
    """
    rows = []
    allowed = (1 - LEVEL) / max(1, len(lacking))
    for name, losses in lacking.items():
        teacher, student = (gain_between((whole, who), (losses, who)) for who in (Contender.TEACHER, Contender.STUDENT))
        rows.append(
            WithoutRow(
                name,
                teacher_crps=losses.mean(Contender.TEACHER),
                student_crps=losses.mean(Contender.STUDENT),
                teacher_gain=teacher,
                student_gain=student,
                is_gain=student.estimate > NEGLIGIBLE and student.p <= allowed,
                is_harm=student.estimate < -NEGLIGIBLE and 1 - student.p <= allowed,
            )
        )
    return rows


@dataclass(frozen=True)
class HistoryRow:
    """A history in days; CRPS in the target's unit, and the gains over twins with the whole history."""

    days: int
    student_crps: float
    twin_crps: float
    student_gain: Gain
    twin_gain: Gain


def rows_by_history(by_days: Mapping[int, Losses]) -> list[HistoryRow]:
    """A row for each length of the history, the shortest first; the longest is the whole."""
    longest = by_days[max(by_days)]
    reference = (longest, Contender.TWIN)
    return [
        HistoryRow(
            days,
            student_crps=losses.mean(Contender.STUDENT),
            twin_crps=losses.mean(Contender.TWIN),
            student_gain=gain_between((losses, Contender.STUDENT), reference),
            twin_gain=gain_between((losses, Contender.TWIN), reference),
        )
        for days, losses in sorted(by_days.items())
    ]


@dataclass(frozen=True)
class DaysNeeded:
    """The shortest history from which on students, and twins, are as good as twins with the whole history.

    student: None where not even students with the whole history are
    """

    student: int | None
    twin: int

    @property
    def saved(self) -> int | None:
        """Days that the teacher saves; negative where its students need more. None: they never get there."""
        return None if self.student is None else self.twin - self.student


def days_needed(rows: Sequence[HistoryRow]) -> DaysNeeded:
    """Read the days from a table by history: at each longer history, too, the CRPS must be as low."""

    def least(gains: Sequence[Gain]) -> int | None:
        enough = None
        for row, gain in zip(reversed(rows), reversed(gains), strict=True):
            if gain.estimate < -NEGLIGIBLE:
                break
            enough = row.days
        return enough

    twin = least([row.twin_gain for row in rows])
    return DaysNeeded(least([row.student_gain for row in rows]), rows[-1].days if twin is None else twin)


def shorter_histories(days: int, shares: Sequence[float]) -> list[int]:
    """Shares of a history in whole days, ascending, without those that are too short to retrain on."""
    return sorted({part for share in shares if LEAST_DAYS <= (part := round(days * share)) < days})


def kept_values_a_day(privilege: str, spec: DatasetSpec) -> int:
    """How many values a day, of each series, have to be measured and stored for a privilege in training."""
    if privilege == Privilege.MINUTES:
        return DAY // spec.finest_step
    if privilege == Privilege.AUXILIARY:
        return len(spec.names(Role.PRIVILEGED)) * (DAY // spec.student_step)
    return 0
