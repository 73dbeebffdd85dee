import numpy as np
import pytest

from tests.tutelage.data.builders import meter
from tutelage.distil.privilege import UNPRIVILEGED, Views
from tutelage.distil.recipe import Recipe
from tutelage.forecasts import Contender
from tutelage.judge.ablation import (
    PLACEBO,
    DaysNeeded,
    HistoryRow,
    Privilege,
    days_needed,
    kept_values_a_day,
    privileges,
    rows_by_history,
    rows_without,
    shorter_histories,
    variants,
    without,
)
from tutelage.judge.comparison import Gain, Losses

STUDENT, TWIN, TEACHER = Contender.STUDENT, Contender.TWIN, Contender.TEACHER
HOURS = np.arange(120 * 24)
DAILY = 2 + np.sin(2 * np.pi * HOURS / 24)


def losses_of(
    student: float, *, twin: float = 1.0, teacher: float = 0.5, noise: int = 0, spread: float = 0.01
) -> Losses:
    """Two replicates of each contender with these mean losses, about, at the hours of 120 days."""
    rng = np.random.default_rng(noise)

    def around(mean: float) -> np.ndarray:
        return mean / 2 * DAILY * (1 + spread * rng.normal(size=(2, len(HOURS))))

    return Losses(HOURS, {STUDENT: around(student), TWIN: around(twin), TEACHER: around(teacher)})


def seen_by(recipe: Recipe) -> list[Views]:
    return list(recipe.teacher.every_view)


def test_privileges__are_those_of_all_teachers() -> None:
    assert privileges(Recipe()) == [Privilege.FUTURE, Privilege.MINUTES, Privilege.AUXILIARY]
    blind = {"teacher.views": UNPRIVILEGED, "teacher.more_views": ()}
    assert privileges(Recipe().override(blind)) == []
    other = Recipe().override(blind | {"teacher.more_views": (Views(future_sigma=None, relative_hours=3),)})
    assert Privilege.FUTURE in privileges(other)
    sites = Recipe().override(blind | {"teacher.other_sites": "homes", "teacher.pretrained": "fracast"})
    assert privileges(sites) == [Privilege.OTHER_SITES, Privilege.PRETRAINED]


@pytest.mark.parametrize("privilege", [Privilege.FUTURE, Privilege.MINUTES, Privilege.AUXILIARY])
def test_without__leaves_out_one_privilege_and_no_network(privilege: Privilege) -> None:
    recipe = Recipe()
    left = without(recipe, privilege)
    assert privileges(left) == [each for each in privileges(recipe) if each != privilege]
    assert left.teacher.ensemble_size * len(seen_by(left)) == recipe.teacher.ensemble_size * len(seen_by(recipe))
    Recipe.model_validate(left.model_dump())


def test_without__the_last_privilege_as_many_networks_see_what_the_student_sees() -> None:
    recipe = Recipe().override({"teacher.views": Views(minutes_hours=0, auxiliary=False)})
    assert privileges(recipe) == [Privilege.FUTURE, Privilege.MINUTES]
    alone = recipe.override({"teacher.more_views": (UNPRIVILEGED,), "teacher.ensemble_size": 3})
    left = without(alone, Privilege.FUTURE)
    assert (seen_by(left), left.teacher.ensemble_size) == ([UNPRIVILEGED], 6)


def test_without__other_sites_there_is_no_transfer_set() -> None:
    recipe = Recipe().override({"teacher.other_sites": "homes", "distillation.transfer": True})
    left = without(recipe, Privilege.OTHER_SITES)
    assert (left.teacher.other_sites, left.distillation.transfer) == (None, False)


def test_without__a_pretrained_model_of_either_kind() -> None:
    for model in ({"pretrained": "fracast"}, {"pretrained_folder": "/models/chronos-2", "pretrained_digest": 64 * "0"}):
        recipe = Recipe().override({f"teacher.{name}": value for name, value in model.items()})
        assert Privilege.PRETRAINED in privileges(recipe)
        assert without(recipe, Privilege.PRETRAINED) == Recipe()


def test_variants__have_a_placebo_where_teachers_have_views() -> None:
    assert list(variants(Recipe())) == ["future", "minutes", "auxiliary", PLACEBO]
    assert all(views.placebo for views in seen_by(variants(Recipe())[PLACEBO]) if views.any)
    blind = Recipe().override(
        {"teacher.views": UNPRIVILEGED, "teacher.more_views": (), "teacher.pretrained": "fracast"}
    )
    assert list(variants(blind)) == ["pretrained"]


def test_rows_without__say_what_brought_a_gain_and_what_did_harm() -> None:
    whole = losses_of(0.9)
    lacking = {
        "future": losses_of(0.95, teacher=0.9, noise=1),
        "minutes": losses_of(0.9, noise=2, spread=0.02),
        "auxiliary": losses_of(0.85, noise=3),
    }
    future, minutes, auxiliary = rows_without(whole, lacking)
    assert future.student_gain.estimate == pytest.approx(1 - 0.9 / 0.95, abs=2e-3)
    assert future.teacher_gain.estimate == pytest.approx(1 - 0.5 / 0.9, abs=2e-3)
    assert future.student_crps == pytest.approx(0.95, abs=2e-3)
    assert [(row.is_gain, row.is_harm) for row in (future, minutes, auxiliary)] == [
        (True, False),
        (False, False),
        (False, True),
    ]


def test_rows_without__a_claim_must_hold_among_all_that_were_tried() -> None:
    rng, wrong = np.random.default_rng(0), {1: 0, 6: 0}
    for _ in range(400):
        # Equal forecasts whose difference moves within weeks: of six, the luckiest is looked at.
        slow = np.repeat(rng.normal(size=(7, 17)), 168, axis=1)
        every = [Losses(np.arange(slow.shape[1]), dict.fromkeys((STUDENT, TEACHER), 5 + each[None])) for each in slow]
        for count in wrong:
            rows = rows_without(every[0], {str(number): each for number, each in enumerate(every[1 : count + 1])})
            wrong[count] += any(row.is_gain for row in rows)
    assert all(count / 400 < 0.05 for count in wrong.values()), wrong


def test_rows_by_history__compare_with_twins_of_the_whole_history() -> None:
    rows = rows_by_history({100: losses_of(0.9, noise=1), 50: losses_of(1.0, twin=1.2, noise=2)})
    assert [row.days for row in rows] == [50, 100]
    assert rows[0].twin_gain.estimate == pytest.approx(-0.2, abs=3e-3)
    assert rows[1].twin_gain.estimate == 0
    assert rows[1].student_gain.estimate == pytest.approx(0.1, abs=3e-3)


def history_of(*by_days: tuple[int, float, float]) -> list[HistoryRow]:
    """Rows of days, the students' gain over twins with the whole history, and the twins'."""

    def gain(estimate: float) -> Gain:
        return Gain(estimate, estimate - 0.01, estimate + 0.01, 0.5, 100)

    return [HistoryRow(days, 1.0, 1.0, gain(student), gain(twin)) for days, student, twin in by_days]


@pytest.mark.parametrize(
    ("rows", "needed", "saved"),
    [
        (history_of((25, -0.1, -0.2), (50, 0.01, -0.05), (100, 0.03, 0)), DaysNeeded(50, 100), 50),
        (history_of((25, 0.01, -0.2), (50, -0.01, -0.05), (100, 0.03, 0)), DaysNeeded(100, 100), 0),
        (history_of((25, 0.01, 0.01), (50, 0.02, 0.01), (100, 0.03, 0)), DaysNeeded(25, 25), 0),
        (history_of((25, -0.1, 0.02), (50, 0.01, 0.01), (100, 0.03, 0)), DaysNeeded(50, 25), -25),
        (history_of((50, 0.01, -0.1), (100, -0.02, 0)), DaysNeeded(None, 100), None),
    ],
)
def test_days_needed__are_counted_against_what_twins_need(
    rows: list[HistoryRow], needed: DaysNeeded, saved: int | None
) -> None:
    assert days_needed(rows) == needed
    assert days_needed(rows).saved == saved


def test_shorter_histories__are_whole_days_that_a_retrain_takes() -> None:
    assert shorter_histories(100, (0.75, 0.25, 0.5)) == [25, 50, 75]
    assert shorter_histories(22, (0.25, 0.5)) == [11]
    assert shorter_histories(100, ()) == []


def test_kept_values_a_day__are_what_has_to_be_measured() -> None:
    spec = meter()
    assert kept_values_a_day(Privilege.MINUTES, spec) == 24 * spec.readings_per_step
    assert kept_values_a_day(Privilege.AUXILIARY, spec) % 24 == 0
    assert kept_values_a_day(Privilege.FUTURE, spec) == kept_values_a_day(PLACEBO, spec) == 0
