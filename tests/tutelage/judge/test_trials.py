import pytest

from tests.tutelage.builders import recipe_of, small_recipe
from tutelage.distil.plans import StudentPlan, make_plan
from tutelage.distil.recipe import Recipe, Terms, teacher_part
from tutelage.errors import SpecError
from tutelage.judge.trials import (
    AXES,
    Space,
    Trial,
    group_trials,
    list_trials,
    side_by_side,
    varied_axes,
)

SPACE = Space(alpha=(0.5, 0.9), future_sigma=(1.0, 3.0), dropout=(0.0, 0.3))


def trials_of(recipe: Recipe | None = None, space: Space = SPACE) -> list[Trial]:
    return list_trials(recipe or small_recipe(), space, max_trials=None, seed=0)


@pytest.mark.parametrize(
    ("leaves", "path"),
    [
        ({"gate": "windows"}, "distillation.gate"),
        ({"unlabelled": True, "views": {"future_sigma": None}, "more_views": ()}, "distillation.unlabelled"),
        ({"registered_model": "home-24h/3"}, "teacher.registered_model"),
        ({"other_sites": "homes"}, "teacher.other_sites"),
    ],
)
def test_list_trials__refuses_what_needs_more_than_a_folds_readings(leaves: dict[str, object], path: str) -> None:
    with pytest.raises(SpecError, match=rf"^a study can't have recipe\.{path}: leave it out$"):
        trials_of(recipe_of(**leaves), Space())


@pytest.mark.parametrize("gate", ["none", "hours"])
def test_list_trials__the_default_gate_is_left_out_without_a_word(gate: str) -> None:
    assert trials_of(small_recipe(gate=gate))


def test_side_by_side__leaves_out_what_a_plan_holds() -> None:
    changed = recipe_of(alpha=0.1, temperature=3.0, terms=Terms(scale=1.0))
    assert make_plan(changed, seed=4) == StudentPlan(
        seed=4, alpha=0.1, temperature=3.0, dropout=0.2, terms=Terms(scale=1.0)
    )
    assert side_by_side(changed) == side_by_side(Recipe())
    assert side_by_side(Recipe().override({"student.training.dropout": 0.7})) == side_by_side(Recipe())
    for path, value in (("student.training.learning_rate", 1e-4), ("student.width", 12), ("distillation.bins", 12)):
        assert side_by_side(Recipe().override({path: value})) != side_by_side(Recipe()), path


def test_space__every_axis_is_a_field_and_each_stands_in_the_recipe() -> None:
    assert set(Space.model_fields) == set(AXES)
    for path in AXES.values():
        assert Recipe().override({path: 0.123}) != Recipe(), path


def test_list_trials__crosses_all_and_adds_a_twin_for_each_student() -> None:
    trials = trials_of()
    assert [trial.name for trial in trials if trial.kind == "twin"] == ["twin, dropout 0", "twin, dropout 0.3"]
    singles = [trial for trial in trials if trial.kind == "single"]
    assert len(singles) == 8
    assert singles[0].name == "α 0.5, σ 1, dropout 0"
    assert singles[-1].recipe.teacher.views.future_sigma == 3.0
    assert singles[-1].recipe.student.training.dropout == 0.3
    assert singles[-1].twin == "twin, dropout 0.3"
    assert singles[-1].settings["future_sigma"] == 3.0


def test_list_trials__a_twin_is_the_same_student_without_a_teacher() -> None:
    twins = [trial for trial in trials_of(small_recipe(terms=Terms(scale=1.0))) if not trial.teachers]
    assert all(make_plan(twin.recipe, seed=0) == make_plan(twin.recipe, seed=0).twin for twin in twins)
    assert [twin.settings for twin in twins] == [
        {"alpha": 0.0, "dropout": dropout, "learning_rate": 3e-3, "weight_decay": 1e-4} for dropout in (0.0, 0.3)
    ]


def test_list_trials__averages_are_of_all_teachers_of_a_twin() -> None:
    averages = [trial for trial in trials_of() if trial.kind == "average"]
    assert [average.twin for average in averages] == ["twin, dropout 0", "twin, dropout 0.3"]
    for average in averages:
        assert average.settings["alpha"] == average.recipe.distillation.alpha == 0.7
        assert [part.teacher.views.future_sigma for part in average.teachers] == [1.0, 3.0]
        assert "future_sigma" not in average.settings


def test_list_trials__alpha_0_in_the_space_is_the_twin_and_no_more() -> None:
    space = SPACE.model_copy(update={"alpha": (0.0, 0.5, 0.9)})
    with_zero, without = ([trial.name for trial in trials_of(space=each)] for each in (space, SPACE))
    assert with_zero == without


def test_varied_axes__are_alpha_and_what_single_recipes_differ_in() -> None:
    assert varied_axes(trials_of()) == ["alpha", "future_sigma", "dropout"]
    assert varied_axes(trials_of(space=Space(alpha=(0.5,), future_sigma=(1.0,)))) == ["alpha"]


def test_list_trials__draws_without_replacement_and_the_same_for_a_seed() -> None:
    def drawn(seed: int) -> list[str]:
        trials = list_trials(small_recipe(), SPACE, max_trials=5, seed=seed)
        return [trial.name for trial in trials if trial.kind == "single"]

    assert len(set(drawn(1))) == 5
    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


def test_list_trials__nothing_taught_is_no_study() -> None:
    with pytest.raises(SpecError, match="with only alpha 0 has no teacher"):
        trials_of(space=Space(alpha=(0.0,)))


def test_list_trials__names_the_setting_that_no_recipe_takes() -> None:
    with pytest.raises(SpecError, match="can't vary temperature to -1"):
        trials_of(space=Space(temperature=(-1.0,)))


def test_group_trials__share_a_teacher_and_a_budget() -> None:
    trials = trials_of(space=Space(alpha=(0.5, 0.9), future_sigma=(1.0, 3.0), learning_rate=(1e-3, 1e-2)))
    groups = group_trials(trials)
    assert sorted(trial.name for group in groups for trial in group.trials) == sorted(trial.name for trial in trials)
    # a twin and an average a rate, and two alphas for each of two teachers and two rates
    assert [len(group.trials) for group in groups] == [1, 1, 2, 2, 2, 2, 1, 1]
    assert len({teacher_part(trial.recipe) for trial in trials if trial.kind == "single"}) == 2
    for group in groups:
        assert len({side_by_side(trial.recipe) for trial in group.trials}) == 1
