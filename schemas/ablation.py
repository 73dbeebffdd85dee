"""The contracts of the ablation flow."""

import datetime as dt
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.manifests import Manifest
from schemas.parameters import Engine
from schemas.retrain import RetrainParameters
from schemas.training import CUSTOM, TrainingParameters
from tutelage.distil.recipe import Recipe
from tutelage.judge.ablation import DaysNeeded, HistoryRow, WithoutRow
from tutelage.judge.comparison import Gain


class AblationParameters(TrainingParameters):
    """Which forecaster to retrain without each privilege of its teachers, and with less history."""

    test_days: int = Field(
        120, ge=7, le=2000, title="Test [days]", description="Days at the end of the data that all are compared on."
    )
    history_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.25, 0.5, 0.75),
        title="Shorter histories",
        description="Shares of the history that the recipe is also retrained on. Empty: none.",
    )

    engine: Engine = "local"

    @model_validator(mode="after")
    def _has_teachers_of_its_own(self) -> "AblationParameters":
        if self.recipe.teacher.registered_model is not None:
            raise ValueError("recipe.teacher.registered_model: what it has learned from can't be left out")
        return self

    def variant(
        self, recipe: Recipe, end: dt.datetime, *, history_days: int | None = None, unprivileged: bool = False
    ) -> RetrainParameters:
        """The parameters of the retrain on data up to `end` with another recipe, or a shorter history."""
        shared = {name: getattr(self, name) for name in TrainingParameters.model_fields}
        changed = {"recipe": recipe, "preset": CUSTOM, "as_of": end, "unprivileged": unprivileged}
        return RetrainParameters(
            **shared | changed | {"history_days": history_days or self.history_days},
            test_days=self.test_days,
            refit=False,
            promotion="never",
        )


class Ablation(BaseModel):
    """What each privilege brought: the content of `ablation.json`. CRPS in the target's unit, gains as shares.

    student_crps, twin_crps, teacher_crps, unprivileged_crps: with the whole recipe and the whole history; the last is
        None where no unprivileged students were trained
    gain_over_unprivileged: the students' over those: what all privileges together brought
    kept_values_a_day: by privilege, how many values a day and series have to be measured and stored for it
    history: by number of days; empty where no shorter one was tried
    left_out: why a retrain was left out, by its name
    """

    model_config = ConfigDict(extra="forbid")

    task: str
    sentence: str
    unit: str
    test_start_utc: dt.datetime
    test_end_utc: dt.datetime
    history_days: int
    replicates: int
    student_crps: float
    twin_crps: float
    teacher_crps: float
    unprivileged_crps: float | None
    gain_over_unprivileged: Gain | None
    without: list[WithoutRow]
    kept_values_a_day: dict[str, int]
    history: list[HistoryRow]
    days_needed: DaysNeeded | None
    left_out: dict[str, str]
    mlflow_run_id: str


class AblationManifest(Manifest):
    """An ablation's folder, with its page, plot and table, and its result."""

    folder: Path
    result: Ablation
