from dataclasses import replace

import torch

from tests.tutelage.builders import dataset_of, recipe_of, small_recipe, synthetic_panel
from tutelage.distil.plans import StudentPlan, make_plan, plan_student
from tutelage.distil.recipe import Terms


def test_student_plan__a_twin_has_no_teacher() -> None:
    taught = StudentPlan(seed=3, dropout=0.4, terms=Terms(windows=1.0))
    assert taught.taught
    assert not taught.twin.taught
    assert (taught.twin.seed, taught.twin.dropout) == (3, 0.4)


def test_make_plan__has_what_the_recipe_gives_its_student() -> None:
    recipe = recipe_of(alpha=0.1, temperature=3.0, terms=Terms(scale=1.0))
    assert make_plan(recipe, seed=4) == StudentPlan(
        seed=4, alpha=0.1, temperature=3.0, dropout=0.2, terms=Terms(scale=1.0)
    )


def test_plan_student__alpha_is_less_where_few_windows_fit_one_after_the_other() -> None:
    dataset = dataset_of(synthetic_panel([160]), train_hours=100)
    few, many = small_recipe(alpha=0.9, small_data_alpha=0.5), small_recipe(alpha=0.9, small_data_alpha=None)
    enough = replace(dataset, train=torch.arange(50 * dataset.horizon))
    assert plan_student(enough, few, seed=1).alpha == 0.9
    short = replace(dataset, train=enough.train[:-1])
    assert plan_student(short, few, seed=1).alpha == 0.5
    assert plan_student(short, many, seed=1).alpha == 0.9
    assert plan_student(short, small_recipe(alpha=0.3, small_data_alpha=0.5), seed=1).alpha == 0.3
