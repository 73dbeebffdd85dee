"""Parameters of flows that train: history, recipe or preset, seed, replicates and device."""

import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from schemas.parameters import HistoryParameters
from tutelage.distil.recipe import Device, Recipe, TrainingPlan, load_recipe

CUSTOM = "custom"
"""No preset: use the recipe in the form."""


def recipes_folder() -> Path:
    """The folder of the presets: TUTELAGE_RECIPES, by default deployments/recipes of this checkout."""
    default = Path(__file__).parent.parent / "deployments" / "recipes"
    return Path(os.environ.get("TUTELAGE_RECIPES", default))


def list_presets() -> list[str]:
    """The choices of the form: `custom`, or the name of a recipe file."""
    return [CUSTOM, *sorted(path.stem for path in recipes_folder().glob("*.yaml"))]


def _offer_presets(schema: dict[str, Any]) -> None:
    schema["enum"] = list_presets()


class TrainingParameters(HistoryParameters):
    """Which forecaster to train, on what history, and how."""

    preset: str = Field(
        CUSTOM,
        title="Preset",
        description="Name of a recipe in deployments/recipes. custom: the recipe below.",
        json_schema_extra=_offer_presets,
    )
    recipe: Recipe = Field(Recipe(), title="Recipe", description="Teacher, student and the distillation between them.")
    seed: int = Field(
        0, ge=0, le=2**31 - 1, title="Seed", description="The same seed, data and code give the same result."
    )
    replicates: int = Field(
        5,
        ge=1,
        le=32,
        title="Replicates",
        description="Number of students, each with its twin, trained side by side from different initial weights. The "
        "verdict uses their mean, because a single one can be lucky. The first student or its twin may be registered.",
    )
    unprivileged: bool = Field(
        True,
        title="Unprivileged students",
        description="Also train students of the same number of teachers that see only what a student sees. With them "
        "the verdict separates the effect of the privileged data from that of distillation.",
    )
    device: Device = Field(
        "auto", title="Device", description="auto: CUDA where it is available, else MPS, else the CPU."
    )

    @property
    def plan(self) -> TrainingPlan:
        """Everything except the data that a training depends on."""
        return TrainingPlan(
            recipe=self.recipe,
            seed=self.seed,
            replicates=self.replicates,
            unprivileged=self.unprivileged and self.recipe.has_unprivileged,
            device=self.device,
        )

    @model_validator(mode="after")
    def _take_preset(self) -> "TrainingParameters":
        if self.preset != CUSTOM:
            if self.preset not in list_presets():
                raise ValueError(f"preset: there is no {self.preset!r}; known are {', '.join(list_presets())}")
            preset = load_recipe(recipes_folder() / f"{self.preset}.yaml")
            if self.recipe not in (Recipe(), preset):
                raise ValueError(f"preset: {self.preset} and a recipe are both given; leave one of them out")
            self.recipe = preset
        self.recipe.require_horizon(self.horizon_hours)
        return self
