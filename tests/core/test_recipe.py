from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tests.core.builders import synthetic_panel, task_of
from tutelage.distillation import soft_labels, train_teacher
from tutelage.errors import SpecError
from tutelage.recipe import Budget, Recipe, StudentPlan, Terms, load_recipe
from tutelage.students import train_pairs
from tutelage.teachers import states_taught

BLIND = {"future_sigma": None}


def test_load_recipe__what_it_does_not_say_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("alpha: 0.5\nterms: {windows: 2}\nviews:\n  future_sigma_end: 0.5\n")
    recipe = load_recipe(path)
    assert recipe.alpha == 0.5
    assert recipe.terms == Terms(windows=2.0)
    assert recipe.views.future_sigma_end == 0.5
    assert recipe.model_copy(update={"alpha": 0.9, "terms": Terms(), "views": Recipe().views}) == Recipe()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("alfa: 0.5", "recipe own.yaml: alfa: unknown key"),
        ("alpha: 2", "recipe own.yaml: alpha: Input should be less than or equal to 1"),
        ("head: point\nterms: {times: 1}", "recipe own.yaml: terms.times: it needs a head with more than one value"),
        ("- alpha", "recipe own.yaml: expected keys and values, found list"),
        ("alpha: [", "recipe own.yaml is no YAML"),
    ],
)
def test_load_recipe__says_in_a_sentence_what_is_wrong(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(SpecError) as error:
        load_recipe(path)
    assert str(error.value).startswith(sentence)


def test_load_recipe__names_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("alpha: 1")
    with pytest.raises(SpecError, match=r"there is no recipe two\.yaml; known recipes: one"):
        load_recipe(tmp_path / "two.yaml")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"views": BLIND | {"future_sigma_end": 1.0}}, "without future_sigma the teacher does not see the future"),
        ({"teacher": "boosted", "views": {"future_sigma_end": 1.0}}, "boosted trees have no epochs"),
        ({"teacher": "boosted", "terms": {"windows": 1, "features": 1}}, "windows, features need a teacher that is a"),
        ({"teacher_model": "home-24h/3", "terms": {"distances": 1}}, "distances need a teacher that is a network"),
        ({"teacher_model": "home-24h"}, "String should match pattern"),
        ({"teacher_model": "home-24h/3", "teacher_horizons": [6]}, "a registered model teaches its whole horizon"),
        ({"teacher_horizons": [6, 2]}, "they must ascend, none twice"),
        ({"teacher_horizons": [6, 6]}, "they must ascend, none twice"),
        ({"teacher_horizons": [0]}, "greater than or equal to 1"),
        ({"unlabelled": True}, "leave future_sigma empty in views"),
        ({"rolled": True, "student": "tcn"}, "an mlp alone goes on from its own forecasts, and the student is tcn"),
        ({"rolled": True, "terms": {"windows": 1}}, "windows compare one hidden state a window, and a rolled student"),
    ],
)
def test_recipe__refuses_what_does_not_go_together(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Recipe.model_validate(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"unlabelled": True, "views": BLIND, "more_views": []},
        {"unlabelled": True, "teacher_model": "home-24h/3"},
        {"teacher": "boosted", "terms": {"times": 1}, "teacher_horizons": [1, 6]},
        {"teacher": "inverted", "student": "inverted", "terms": {"variables": 1, "attention": 1}},
        {"teacher": "patch", "student": "patch", "terms": {"attention": 1}},
        {"teacher": "tcn", "rolled": True, "terms": {"scale": 1, "times": 1}},
    ],
)
def test_recipe__takes_what_goes_together(changes: dict[str, object]) -> None:
    assert Recipe.model_validate(changes).model_dump(exclude_unset=True, mode="json") == {
        **changes,
        **({"terms": {name: float(w) for name, w in changes["terms"].items()}} if "terms" in changes else {}),
    }


@pytest.mark.parametrize("budget", [{"epochs": 4}, Budget(epochs=4)])
def test_recipe__a_teacher_s_budget_that_says_nothing_of_dropout_has_the_teacher_s(budget: object) -> None:
    recipe = Recipe.model_validate({"teacher_budget": budget, "student_budget": budget})
    assert (recipe.teacher_budget.epochs, recipe.teacher_budget.dropout) == (4, 0.5)
    assert recipe.student_budget.dropout == 0.2
    again = Recipe.model_validate(recipe.model_copy(update={"teacher_budget": Budget(dropout=0.2)}).model_dump())
    assert again.teacher_budget.dropout == 0.2


def test_student_plan__a_twin_has_no_teacher() -> None:
    taught = StudentPlan(seed=3, dropout=0.4, terms=Terms(windows=1.0))
    assert taught.taught
    assert not taught.twin.taught
    assert (taught.twin.seed, taught.twin.dropout) == (3, 0.4)


@pytest.mark.parametrize(
    ("changes", "has_control"),
    [
        ({}, True),
        ({"more_views": [], "views": {"placebo": True}}, True),
        ({"views": BLIND | {"minutes_hours": 0, "auxiliary": False}, "more_views": []}, False),
        ({"teacher_model": "home-24h/3"}, False),
        ({"terms": {"features": 1}}, False),
        ({"terms": {"scale": 1}}, True),
    ],
)
def test_recipe__a_control_needs_privilege_that_can_be_left_out(changes: dict[str, object], has_control: bool) -> None:
    assert Recipe.model_validate(changes).has_control is has_control


def test_recipe__its_control_has_as_many_networks_and_no_privilege() -> None:
    recipe = Recipe(teachers=3, alpha=0.7)
    control = recipe.without_privilege
    assert [own.teachers for own in control.by_view()] == [9]
    assert not any(own.views.any for own in control.by_view())
    assert control.model_copy(update={"views": recipe.views, "more_views": recipe.more_views, "teachers": 3}) == recipe


TIMEKD = Path(__file__).parents[2] / "deployments" / "recipes" / "timekd.yaml"


def test_timekd__trains_on_a_small_series() -> None:
    task = task_of(synthetic_panel([160]), train_hours=100)
    budget = Budget(epochs=1, patience=1, batch_size=1024, learning_rate=1e-9, dropout=0.0)
    small = {"teacher_width": 16, "student_width": 16, "teacher_budget": budget, "student_budget": budget}
    recipe = load_recipe(TIMEKD).model_copy(update=small)
    teacher, _ = train_teacher(task, recipe, seed=0)
    soft, states = soft_labels(teacher, task, task.train, recipe, seed=0), states_taught(teacher, task, recipe, seed=0)

    def beyond_the_twin(**weights: float) -> float:
        """What a student's loss has more than its twin's, before either has learnt anything."""
        taught = recipe.model_copy(update={"terms": Terms(**weights)}) if weights else recipe
        (student, _), progress = train_pairs(task, soft[None], taught, seed=0, states=states)
        assert student.shape.head == "point"
        first, twin = progress.history[0]["train"]
        return first - twin

    # SmoothL1 of the twin: half the square of misses below one standard deviation, what is beyond them straight.
    (_, twin), progress = train_pairs(task, soft[None], recipe, seed=0, states=states)
    mean, std = task.scale()
    with torch.no_grad():
        missed = (twin(*task.student_inputs(task.train)).squeeze() - (task.truth(task.train) - mean) / std).abs()
    smooth = torch.where(missed < 1, missed**2 / 2, missed - 0.5).mean().item()
    assert progress.history[0]["train"][1] == pytest.approx(smooth, rel=1e-4)
    feature, attention = beyond_the_twin(features=1.0), beyond_the_twin(attention=1.0)
    assert min(feature, attention) > 0
    assert beyond_the_twin() == pytest.approx(0.1 * feature + 0.01 * attention, rel=1e-2)
