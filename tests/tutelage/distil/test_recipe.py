import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.tutelage.builders import recipe_of, small_recipe
from tutelage.distil.recipe import (
    UNPRIVILEGED,
    Recipe,
    Terms,
    TrainingPlan,
    Views,
    load_recipe,
    student_part,
    teacher_part,
)
from tutelage.errors import SpecError
from tutelage.model.kinds import Budget

NO_FUTURE = {"future_sigma": None}


def test_load_recipe__a_key_that_is_left_out_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "distillation:\n  alpha: 0.5\n  terms: {windows: 2}\nteacher:\n  views:\n    future_sigma_end: 0.5\n"
    )
    recipe = load_recipe(path)
    assert recipe.distillation.alpha == 0.5
    assert recipe.distillation.terms == Terms(windows=2.0)
    assert recipe.teacher.views.future_sigma_end == 0.5
    defaults = {
        "distillation.alpha": 0.9,
        "distillation.terms": Terms(),
        "teacher.views": Recipe().teacher.views,
    }
    assert recipe.override(defaults) == Recipe()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("alpha: 0.5", "recipe mine.yaml: alpha: unknown key"),
        ("distillation: {alfa: 0.5}", "recipe mine.yaml: distillation.alfa: unknown key"),
        ("distillation: {alpha: 2}", "recipe mine.yaml: distillation.alpha: Input should be less than or equal to 1"),
        (
            "student: {head: point}\ndistillation: {terms: {times: 1}}",
            "recipe mine.yaml: distillation.terms.times: it needs more than one value per hour",
        ),
        ("- alpha", "recipe mine.yaml: expected keys and values, found list"),
        ("alpha: [", "recipe mine.yaml is not valid YAML"),
    ],
)
def test_load_recipe__says_in_a_sentence_what_is_wrong(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(SpecError) as error:
        load_recipe(path)
    assert str(error.value).startswith(sentence)


def test_load_recipe__names_the_known_recipes(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("distillation: {alpha: 1}")
    with pytest.raises(SpecError, match=r"there is no recipe second\.yaml; known recipes: first"):
        load_recipe(tmp_path / "second.yaml")


@pytest.mark.parametrize(
    ("leaves", "sentence"),
    [
        ({"views": NO_FUTURE | {"future_sigma_end": 1.0}}, "without future_sigma the teacher does not see the future"),
        ({"kind": "boosted", "views": {"future_sigma_end": 1.0}}, "boosted trees have no epochs"),
        ({"kind": "boosted", "more_views": [{"future_sigma_end": 1.0}]}, "boosted trees have no epochs"),
        ({"kind": "boosted", "terms": {"windows": 1, "features": 1}}, "windows, features need a teacher that is a"),
        ({"registered_model": "home-24h/3", "terms": {"distances": 1}}, "distances need a teacher that is a network"),
        ({"registered_model": "home-24h"}, "String should match pattern"),
        ({"registered_model": "home-24h/3", "horizons": [6]}, "a registered model teaches its whole horizon"),
        ({"horizons": [6, 2]}, "they must ascend, without duplicates"),
        ({"horizons": [6, 6]}, "they must ascend, without duplicates"),
        ({"horizons": [0]}, "greater than or equal to 1"),
        ({"unlabelled": True}, r"leave future_sigma and relative_hours empty in teacher\.views"),
        ({"unlabelled": True, "views": NO_FUTURE}, r"empty in teacher\.views and teacher\.more_views"),
        (
            {"unlabelled": True, "views": NO_FUTURE | {"relative_hours": 1}, "more_views": []},
            "there is no future to show",
        ),
        ({"kind": "boosted", "coupling": 1}, "only networks that this recipe trains learn together with a companion"),
        ({"kind": "boosted", "other_sites": "homes"}, "only networks learn from other sites, not boosted trees"),
        ({"registered_model": "home-24h/3", "coupling": 1}, "only networks that this recipe trains learn together"),
        ({"registered_model": "home-24h/3", "simple": True}, "simple: a registered model is the only teacher"),
        ({"transfer": True, "other_sites": "homes", "simple": True}, "know this site alone and can't label a transfer"),
        (
            {"views": {"relative_hours": 1}, "terms": {"features": 1}},
            "features compare hidden states of one issue time, and the first teacher",
        ),
        ({"recursive": True, "architecture": "tcn"}, "only an mlp can be recursive, not tcn"),
        ({"recursive": True, "terms": {"windows": 1}}, "windows compare one hidden state per window; a recursive"),
        ({"terms": {"attention": 1.0}}, "two transformers of one kind, patch or inverted; the teacher's kind is mlp"),
        (
            {"terms": {"attention": 1.0}, "kind": "patch", "architecture": "inverted"},
            "the teacher's kind is patch, the student's architecture inverted",
        ),
        ({"terms": {"variables": 1.0}, "kind": "patch", "architecture": "patch"}, "the teacher's kind is patch"),
        ({"terms": {"times": 1.0}, "head": "point"}, r"terms\.times: it needs more than one value per hour"),
        ({"student_pretrained": "fracast", "base": "none"}, r"student\.base must be simple"),
        ({"student_pretrained": "fracast", "head": "point"}, "simple, the head no point"),
        ({"transfer": True}, r"distillation\.transfer: name the other sites in teacher\.other_sites"),
        ({"registered_model": "home-24h/3", "other_sites": "homes"}, "registered_model: it is the only teacher"),
        ({"registered_model": "home-24h/3", "pretrained": "fracast"}, "registered_model: it is the only teacher"),
        ({"registered_model": "home-24h/3", "pretrained_folder": "/m"}, "registered_model: it is the only teacher"),
        ({"pretrained": "fracast", "pretrained_folder": "/m"}, "pretrained_folder: one pretrained model teaches"),
        ({"pretrained_digest": 64 * "0"}, "pretrained_digest: there is no pretrained_folder"),
        ({"pretrained_folder": "chronos-2"}, "pretrained_folder: chronos-2 is no absolute path"),
    ],
)
def test_recipe__refuses_what_does_not_go_together(leaves: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        recipe_of(**leaves)


@pytest.mark.parametrize(
    "content",
    [
        {"teacher": {"views": NO_FUTURE, "more_views": []}, "distillation": {"unlabelled": True}},
        {"teacher": {"registered_model": "home-24h/3"}, "distillation": {"unlabelled": True}},
        {"teacher": {"kind": "boosted", "horizons": [1, 6]}, "distillation": {"terms": {"times": 1}}},
        {
            "teacher": {"more_views": [{"relative_hours": 1}], "simple": True, "weights": "likely", "coupling": 1.0},
            "distillation": {"terms": {"features": 1}, "stop": "teacher"},
        },
        {
            "teacher": {"kind": "inverted"},
            "student": {"architecture": "inverted"},
            "distillation": {"terms": {"variables": 1, "attention": 1}},
        },
        {
            "teacher": {"kind": "patch"},
            "student": {"architecture": "patch"},
            "distillation": {"terms": {"attention": 1}},
        },
        {
            "teacher": {"kind": "tcn"},
            "student": {"recursive": True},
            "distillation": {"terms": {"scale": 1, "times": 1}},
        },
    ],
)
def test_recipe__takes_what_goes_together(content: dict[str, dict[str, object]]) -> None:
    assert Recipe.model_validate(content).model_dump(exclude_unset=True, mode="json") == content


@pytest.mark.parametrize("budget", [{"epochs": 4}, Budget(epochs=4)])
def test_recipe__a_teachers_budget_without_a_dropout_has_the_teachers(budget: object) -> None:
    recipe = recipe_of(teacher_training=budget, student_training=budget)
    assert (recipe.teacher.training.epochs, recipe.teacher.training.dropout) == (4, 0.5)
    assert recipe.student.training.dropout == 0.2
    again = Recipe.model_validate(recipe.override({"teacher.training": Budget(dropout=0.2)}).model_dump())
    assert again.teacher.training.dropout == 0.2


@pytest.mark.parametrize("horizon", [5, 6])
def test_require_horizon__refuses_teachers_that_are_not_shorter(horizon: int) -> None:
    recipe = recipe_of(horizons=(2, 6))
    with pytest.raises(ValueError, match="horizons") as error:
        recipe.require_horizon(horizon)
    assert str(error.value) == f"recipe.teacher.horizons: 6 h is not shorter than the horizon, {horizon} h"
    recipe.require_horizon(7)


@pytest.mark.parametrize(("leaf", "part"), [("student_pretrained", "student"), ("pretrained", "teacher")])
def test_require_horizon__refuses_what_the_pretrained_model_does_not_reach(leaf: str, part: str) -> None:
    recipe = recipe_of(**{leaf: "fracast"})
    with pytest.raises(ValueError, match=rf"recipe\.{part}\.pretrained: fracast forecasts up to 48 h, not 49 h"):
        recipe.require_horizon(49)
    recipe.require_horizon(48)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 4.0), (0.5, 2.5), (1.0, 1.0), (1.5, 1.0)])
def test_views__after_golden(share: float, expected: float) -> None:
    assert Views(future_sigma=4.0, future_sigma_end=1.0).after(share).future_sigma == expected
    assert Views(future_sigma=4.0).after(share) == Views(future_sigma=4.0)


@pytest.mark.parametrize(
    ("views", "sentence"),
    [
        (UNPRIVILEGED, "what the student sees"),
        (Views(), "the future with noise of σ = 2, raw readings of 3 h, auxiliary sensors"),
        (Views(future_sigma=4.0, future_sigma_end=0.5, minutes_hours=0, auxiliary=False), "noise of σ = 4 to 0.5"),
    ],
)
def test_views__sentence_names_all_that_is_seen(views: Views, sentence: str) -> None:
    assert views.sentence.endswith(sentence)
    assert views.any is (views != UNPRIVILEGED)


@pytest.mark.parametrize(
    ("leaves", "sentence"),
    [
        ({"more_views": ()}, r"networks \(the future [^;]*auxiliary sensors\)"),
        ({"views": UNPRIVILEGED, "more_views": (), "kind": "boosted"}, r"boosted trees \(what the student sees\)"),
        (
            {"views": UNPRIVILEGED, "more_views": (), "other_sites": "homes", "pretrained": "fracast", "simple": True},
            r"networks \(what the student sees, trained on the sites of homes, too\); "
            "the mean of the simple forecasts; fracast, a pretrained model, as it comes",
        ),
        ({"registered_model": "home-24h/3"}, "home-24h/3"),
    ],
    ids=["networks", "trees", "all that know more", "registered"],
)
def test_teachers__sentence_names_all_that_teach(leaves: dict[str, object], sentence: str) -> None:
    assert re.fullmatch(sentence, recipe_of(**leaves).teacher.sentence)


@pytest.mark.parametrize(
    ("leaves", "has_unprivileged"),
    [
        ({}, True),
        ({"more_views": [], "views": {"placebo": True}}, True),
        ({"views": NO_FUTURE | {"minutes_hours": 0, "auxiliary": False}, "more_views": []}, False),
        ({"registered_model": "home-24h/3"}, False),
        ({"terms": {"features": 1}}, False),
        ({"terms": {"scale": 1}}, True),
    ],
)
def test_recipe__unprivileged_students_need_privilege_that_can_be_left_out(
    leaves: dict[str, object], has_unprivileged: bool
) -> None:
    assert recipe_of(**leaves).has_unprivileged is has_unprivileged


def test_recipe__its_unprivileged_teacher_has_as_many_networks_and_no_privilege() -> None:
    recipe = recipe_of(ensemble_size=3, alpha=0.7)
    unprivileged = recipe.unprivileged
    assert [each.teacher.ensemble_size for each in unprivileged.by_view()] == [9]
    assert not any(each.teacher.views.any for each in unprivileged.by_view())
    teacher = recipe.teacher
    restored = {
        "teacher.views": teacher.views,
        "teacher.more_views": teacher.more_views,
        "teacher.ensemble_size": 3,
    }
    assert unprivileged.override(restored) == recipe


def test_recipe__its_unprivileged_teachers_know_no_pretrained_model() -> None:
    knowing = recipe_of(pretrained_folder="/models/chronos-2", pretrained_digest=64 * "0")
    assert knowing.has_unprivileged
    assert knowing.unprivileged == Recipe().unprivileged


def test_recipe__its_placebo_sees_other_windows_and_the_unprivileged_view_stays() -> None:
    recipe = recipe_of(more_views=(UNPRIVILEGED,))
    assert [each.teacher.views.placebo for each in recipe.placebo.by_view()] == [True, False]
    assert recipe.placebo.override({"teacher.views": Views()}) == recipe


def test_override__changes_what_is_named_and_leaves_the_recipe_as_it_was() -> None:
    recipe = small_recipe()
    changed = recipe.override({"teacher.views.future_sigma": 5.0, "distillation.alpha": 0.1})
    assert (changed.teacher.views.future_sigma, changed.distillation.alpha) == (5.0, 0.1)
    assert recipe.teacher.views.future_sigma == 2.0
    assert changed.override({"teacher.views.future_sigma": 2.0, "distillation.alpha": 0.9}) == recipe


@pytest.mark.parametrize("kind", ["alpha", "student"])
def test_teacher_part__depends_on_the_teacher_alone(kind: str) -> None:
    changes = {"alpha": {"distillation.alpha": 0.1}, "student": {"student.width": 12}}[kind]
    recipe = small_recipe()
    assert teacher_part(recipe.override(changes)) == teacher_part(recipe)
    assert student_part(recipe.override(changes)) != student_part(recipe)
    for path, value in (("teacher.width", 12), ("distillation.bins", 12), ("distillation.unlabelled", True)):
        assert teacher_part(recipe.override({path: value})) != teacher_part(recipe), path
    assert student_part(recipe.override({"teacher.width": 12})) == student_part(recipe)


def test_recipe__every_leaf_belongs_to_the_teachers_or_to_the_students() -> None:
    """A value that is in neither part would be shared between trainings that differ in it."""
    recipe = Recipe()
    other: dict[str, object] = {
        "teacher": small_recipe().teacher,
        "student": small_recipe().student,
        **{f"distillation.{name}": object() for name in type(recipe.distillation).model_fields},
    }
    for path, value in other.items():
        changed = recipe.override({path: value})
        parts = [part(changed) != part(recipe) for part in (teacher_part, student_part)]
        assert any(parts), path


def test_training_plan__unprivileged_teachers_of_a_new_site_label_the_same_windows() -> None:
    """They know no other site, and label its windows, so that only what is known differs."""
    plan = TrainingPlan(recipe=recipe_of(other_sites="homes", transfer=True, pretrained="fracast"), seed=4)
    recipe = plan.of_unprivileged_teachers.recipe
    assert (recipe.teacher.other_sites, recipe.teacher.pretrained) == (None, None)
    assert recipe.distillation.transfer


def test_training_plan__of_teachers_depends_on_what_their_training_does() -> None:
    plan = TrainingPlan(recipe=small_recipe(), seed=3, replicates=2, unprivileged=False, device="cpu")
    others = {"recipe": small_recipe(alpha=0.1, student_width=12), "replicates": 7, "unprivileged": True}
    assert plan.model_copy(update=others).of_teachers == plan.of_teachers
    for name, value in (("recipe", small_recipe(teacher_width=12)), ("seed", 4), ("device", "auto")):
        assert plan.model_copy(update={name: value}).of_teachers != plan.of_teachers, name
    assert plan.of_unprivileged_teachers.recipe == teacher_part(plan.recipe.unprivileged)
    assert plan.of_unprivileged_teachers != plan.of_teachers
