from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.retrain import RetrainParameters
from schemas.training import CUSTOM, list_presets, recipes_folder
from tutelage.distil.recipe import Recipe, load_recipe


def test_preset__the_form_offers_the_recipe_files() -> None:
    offered = RetrainParameters.model_json_schema()["properties"]["preset"]["enum"]
    assert offered == list_presets()
    assert offered == [CUSTOM, "new-site", "timekd"]


def test_preset__takes_the_recipe_of_its_file() -> None:
    parameters = RetrainParameters(preset="timekd", horizon_hours=24, lookback_hours=96)
    assert parameters.recipe == load_recipe(recipes_folder() / "timekd.yaml")
    assert len(parameters.recipe.teacher.every_view) == 1
    assert parameters.recipe.teacher.ensemble_size == 1
    again = RetrainParameters.model_validate_json(parameters.model_dump_json())
    assert again == parameters


def test_preset__and_a_recipe_of_ones_own_are_refused() -> None:
    with pytest.raises(ValidationError, match="preset: timekd and a recipe are both given; leave one of them out"):
        RetrainParameters(preset="timekd", recipe={"distillation": {"alpha": 0.5}})


def test_preset__an_unknown_one_is_refused() -> None:
    with pytest.raises(ValidationError, match="preset: there is no 'timekb'; known are custom, new-site, timekd"):
        RetrainParameters(preset="timekb")


def test_preset__a_file_more_is_one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "softer.yaml").write_text("distillation: {temperature: 2}\n")
    monkeypatch.setenv("TUTELAGE_RECIPES", str(tmp_path))
    assert list_presets() == [CUSTOM, "softer"]
    assert RetrainParameters(preset="softer").recipe == Recipe().override({"distillation.temperature": 2.0})


def test_plan__of_teachers_does_not_depend_on_the_students() -> None:
    first = RetrainParameters(recipe={"distillation": {"alpha": 0.3}, "student": {"width": 32}}, replicates=3).plan
    other = RetrainParameters().plan
    assert first.of_teachers == other.of_teachers
    assert first.of_unprivileged_teachers == other.of_unprivileged_teachers
    wider = RetrainParameters(recipe={"teacher": {"width": 32}}).plan
    assert wider.of_teachers != other.of_teachers


def test_plan__without_privilege_has_no_unprivileged_students() -> None:
    nothing = {"future_sigma": None, "minutes_hours": 0, "auxiliary": False}
    assert RetrainParameters().plan.unprivileged
    assert not RetrainParameters(unprivileged=False).plan.unprivileged
    assert not RetrainParameters(recipe={"teacher": {"views": nothing, "more_views": []}}).plan.unprivileged
