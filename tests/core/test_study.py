import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.core.builders import small_recipe, synthetic_panel, task_of
from tutelage.distillation import Task, mean_labels, soft_labels, train_teacher
from tutelage.errors import SpecError
from tutelage.heads import forecast_of
from tutelage.metrics import Forecasts, crps
from tutelage.recipe import Recipe, StudentPlan, Terms, Views
from tutelage.students import train_students
from tutelage.study import (
    AXES,
    LEFT_OUT,
    STUDENT_FIELDS,
    TEACHER_FIELDS,
    Space,
    labels_crps,
    list_lessons,
    list_trials,
    make_plan,
    score_lesson,
    side_by_side,
    students_crps,
    teacher_part,
    varied_axes,
)

SEEN = Views(future_sigma=1.0, minutes_hours=0, auxiliary=False)
SPACE = Space(alpha=(0.5, 0.9), future_sigma=(1.0, 3.0), dropout=(0.0, 0.3))


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(synthetic_panel([240]), train_hours=160)


def test_list_trials__refuses_what_needs_more_than_soft_labels() -> None:
    with pytest.raises(SpecError, match=r"a study can't have recipe\.gate: leave it out"):
        list_trials(Recipe(gate="windows"), Space(), draws=None, seed=0)


def test_recipe__each_field_is_the_teachers_or_the_students() -> None:
    """A new field must be named in one of the two (or both), or a study would share what it must not."""
    assert set(Recipe.model_fields) == {*STUDENT_FIELDS, *TEACHER_FIELDS, *LEFT_OUT}


def test_recipe__each_of_a_plan_is_left_out_of_what_must_be_equal() -> None:
    changed = Recipe(alpha=0.1, temperature=3.0, terms=Terms(scale=1.0))
    assert make_plan(changed, seed=4) == StudentPlan(
        seed=4, alpha=0.1, temperature=3.0, dropout=0.2, terms=Terms(scale=1.0)
    )
    assert side_by_side(changed) == side_by_side(Recipe())
    slow = Recipe().student_budget.model_copy(update={"learning_rate": 1e-4})
    assert side_by_side(Recipe(student_budget=slow)) != side_by_side(Recipe())


def test_space__every_axis_is_a_field_and_each_stands_in_the_recipe() -> None:
    assert set(Space.model_fields) == set(AXES)


def test_list_trials__crosses_all_and_adds_a_twin_for_each_student() -> None:
    trials = list_trials(small_recipe(), SPACE, draws=None, seed=0)
    assert [trial.name for trial in trials if trial.kind == "twin"] == ["twin, dropout 0", "twin, dropout 0.3"]
    singles = [trial for trial in trials if trial.kind == "single"]
    assert len(singles) == 8
    assert singles[0].name == "α 0.5, σ 1, dropout 0"
    assert singles[-1].recipe.views.future_sigma == 3.0
    assert singles[-1].recipe.student_budget.dropout == 0.3
    assert singles[-1].twin == "twin, dropout 0.3"
    assert singles[-1].settings["future_sigma"] == 3.0


def test_list_trials__a_twin_is_the_same_student_without_a_teacher() -> None:
    twins = [t for t in list_trials(small_recipe(terms=Terms(scale=1.0)), SPACE, draws=None, seed=0) if not t.teachers]
    assert all(make_plan(twin.recipe, seed=0) == make_plan(twin.recipe, seed=0).twin for twin in twins)
    assert [twin.settings for twin in twins] == [
        {"alpha": 0.0, "dropout": dropout, "learning_rate": 3e-3, "weight_decay": 1e-4} for dropout in (0.0, 0.3)
    ]


def test_list_trials__averages_are_of_all_teachers_of_a_twin() -> None:
    averages = [t for t in list_trials(small_recipe(), SPACE, draws=None, seed=0) if t.kind == "average"]
    assert [average.twin for average in averages] == ["twin, dropout 0", "twin, dropout 0.3"]
    for average in averages:
        assert average.settings["alpha"] == average.recipe.alpha == 0.7
        assert [teacher.views.future_sigma for teacher in average.teachers] == [1.0, 3.0]
        assert "future_sigma" not in average.settings


def test_list_trials__alpha_0_in_the_space_is_the_twin_and_no_more() -> None:
    space = SPACE.model_copy(update={"alpha": (0.0, 0.5, 0.9)})
    named = [[t.name for t in list_trials(small_recipe(), s, draws=None, seed=0)] for s in (space, SPACE)]
    assert named[0] == named[1]


def test_varied_axes__are_alpha_and_what_single_recipes_differ_in() -> None:
    trials = list_trials(small_recipe(), SPACE, draws=None, seed=0)
    assert varied_axes(trials) == ["alpha", "future_sigma", "dropout"]
    one = list_trials(small_recipe(), Space(alpha=(0.5,), future_sigma=(1.0,)), draws=None, seed=0)
    assert varied_axes(one) == ["alpha"]


def test_list_trials__draws_without_putting_back_and_the_same_for_a_seed() -> None:
    def drawn(seed: int) -> list[str]:
        return [t.name for t in list_trials(small_recipe(), SPACE, draws=5, seed=seed) if t.kind == "single"]

    assert len(set(drawn(1))) == 5
    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


def test_list_trials__nothing_taught_is_no_study() -> None:
    with pytest.raises(SpecError, match="alpha 0 alone teaches nothing"):
        list_trials(small_recipe(), Space(alpha=(0.0,)), draws=None, seed=0)


def test_list_trials__names_the_setting_that_no_recipe_takes() -> None:
    with pytest.raises(SpecError, match="can't vary temperature to -1"):
        list_trials(small_recipe(), Space(temperature=(-1.0,)), draws=None, seed=0)


def test_list_lessons__share_a_teacher_and_a_budget() -> None:
    space = Space(alpha=(0.5, 0.9), future_sigma=(1.0, 3.0), learning_rate=(1e-3, 1e-2))
    trials = list_trials(small_recipe(), space, draws=None, seed=0)
    lessons = list_lessons(trials)
    assert sorted(t.name for lesson in lessons for t in lesson.trials) == sorted(t.name for t in trials)
    # a twin and an average a rate, and two alphas for each of two teachers and two rates
    assert [len(lesson.trials) for lesson in lessons] == [1, 1, 2, 2, 2, 2, 1, 1]
    assert len({teacher_part(t.recipe) for t in trials if t.kind == "single"}) == 2
    for lesson in lessons:
        assert len({side_by_side(t.recipe) for t in lesson.trials}) == 1


def test_mean_labels__are_the_mean_of_probabilities() -> None:
    first, second = (functional.log_softmax(torch.randn(5, 2, 7), dim=-1) for _ in range(2))
    torch.testing.assert_close(mean_labels([first, second]).exp(), (first.exp() + second.exp()) / 2)


def test_score_lesson__is_the_crps_of_the_same_student_trained_alone(task: Task) -> None:
    recipe = small_recipe(views=SEEN)
    trials = list_trials(recipe, Space(alpha=(0.5, 1.0), dropout=(0.0, 0.3), future_sigma=(1.0,)), draws=None, seed=0)
    teacher, _ = train_teacher(task, recipe, seed=0)
    soft = soft_labels(teacher, task, task.train, recipe, seed=0)
    [twins, taught] = list_lessons(trials)
    scored = task.validation[20:]
    found = score_lesson(task, scored, [t.recipe for t in taught.trials], soft=soft, seeds=[3, 8], seed=1)
    without = score_lesson(task, scored, [t.recipe for t in twins.trials], soft=None, seeds=[3, 8], seed=1)
    assert (found.shape, without.shape) == ((6, 2), (2, 2))
    plan = make_plan(taught.trials[2].recipe, seed=8)
    pair, _ = train_students(task, soft[None], [plan, plan.twin], recipe, seed=1)
    outputs = pair(*task.student_inputs(scored)).detach()
    quantiles = forecast_of(outputs, "categorical", edges=task.edges(), scale=task.scale())[1].double().numpy()
    actual = task.truth(scored).double().numpy()
    alone = [float(crps(Forecasts(q.mean(axis=-1), q), actual).mean()) for q in quantiles]
    assert taught.trials[2].settings["dropout"] == 0.0
    np.testing.assert_allclose([found[2, 1], without[0, 1]], alone, rtol=1e-5)


def test_students_crps__does_not_depend_on_the_chunk(task: Task) -> None:
    recipe = small_recipe()
    students, _ = train_students(task, torch.zeros(1, len(task.train), 2, 8), [StudentPlan(alpha=0.0)], recipe, seed=0)
    whole, parts = (students_crps(students, task, task.validation, chunk=chunk) for chunk in (1000, 7))
    assert whole == pytest.approx(parts, rel=1e-6)


def test_labels_crps__is_low_where_the_teacher_knows(task: Task) -> None:
    told = functional.one_hot(task.labels(task.validation), 8).float().clamp(min=1e-12).log()
    even = torch.full_like(told, 1 / 8).log()
    assert labels_crps(told, task, task.validation) < 0.3 * labels_crps(even, task, task.validation)


def test_score_lesson__refuses_what_can_not_train_together(task: Task) -> None:
    slow = small_recipe().student_budget.model_copy(update={"learning_rate": 1e-4})
    recipes = [small_recipe(alpha=0.0), small_recipe(alpha=0.0, student_budget=slow)]
    with pytest.raises(ValueError, match="can't train side by side"):
        score_lesson(task, task.validation, recipes, soft=None, seeds=[0], seed=0)
    with pytest.raises(ValueError, match="without soft labels"):
        score_lesson(task, task.validation, [small_recipe()], soft=None, seeds=[0], seed=0)
