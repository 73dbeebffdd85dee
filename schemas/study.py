"""The contracts of the study flow: its parameters, the results of its stages, and its result."""

import datetime as dt
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.manifests import Manifest
from schemas.parameters import DatedParameters, Engine
from tutelage.distil.recipe import Device, Recipe
from tutelage.judge.choice import Rule, TrialKind
from tutelage.judge.trials import Space


class StudyParameters(DatedParameters):
    """Which recipes of a forecaster to compare, and on which folds of its history."""

    lookback_hours: int = Field(
        168, ge=1, le=1008, title="Lookback [h]", description="Number of past hours that the student sees."
    )
    space: Space = Field(
        Space(), title="Space", description="Settings to vary; all combinations of their values are compared."
    )
    max_trials: int | None = Field(
        None,
        ge=1,
        le=500,
        title="Maximum number of trials",
        description="Maximum number of recipes; from more combinations the seed draws a sample. Empty: no limit.",
    )
    recipe: Recipe = Field(Recipe(), title="Recipe", description="Settings that are not varied.")
    rule: Rule = Field(
        "one-standard-error",
        title="Rule",
        description="one-standard-error: choose the lowest alpha whose CRPS is within one standard error of the best. "
        "average: choose the average of all recipes, unless the twin is within one standard error.",
    )
    history_days: int | None = Field(
        100,
        ge=10,
        le=20000,
        title="History [days]",
        description="Days before the test part that contain the folds. Empty: all available.",
    )
    folds: int = Field(
        4,
        ge=2,
        le=50,
        title="Folds",
        description="Number of rolling origins; the last scored period ends with the history.",
    )
    score_days: int = Field(
        12, ge=2, le=365, title="Scored [days]", description="Days after each fold's training, on which it is scored."
    )
    train_days: int | None = Field(
        None,
        ge=4,
        le=20000,
        title="Training [days]",
        description="Days of training and validation before each scored period. Empty: all of the history before it.",
    )
    validation_share: float = Field(
        0.2,
        ge=0.05,
        le=0.5,
        title="Validation share",
        description="Share of the training days, at their end, for early stopping.",
    )
    test_days: int = Field(
        120, ge=0, le=2000, title="Test [days]", description="Days at the end of the data, which the study never reads."
    )
    seeds: int = Field(
        3, ge=1, le=50, title="Seeds", description="Number of students of each recipe; their scores are averaged first."
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, title="Seed", description="The same seed, data and code give the same result."
    )
    device: Device = Field(
        "auto", title="Device", description="auto: CUDA where it is available, else MPS, else the CPU."
    )

    engine: Engine = "local"

    @model_validator(mode="after")
    def _fits_horizon(self) -> "StudyParameters":
        self.recipe.require_horizon(self.horizon_hours)
        return self


class FoldSpan(BaseModel):
    """One fold: it learns from data before `score_start_utc` and is scored up to, not including, `end_utc`."""

    number: int
    learn_days: int
    score_start_utc: dt.datetime
    end_utc: dt.datetime


class FoldsManifest(Manifest):
    """The folds of a history, the earliest first."""

    folds: list[FoldSpan]


class LabelsManifest(Manifest):
    """A teacher's soft labels of a fold, and the teacher's CRPS on the scored period."""

    folder: Path
    digest: str
    teacher_crps: float


class ScoresManifest(Manifest):
    """CRPS of students on the scored period: one list per recipe, one value per seed."""

    crps: list[list[float]]


class FoldScores(Manifest):
    """The scores of each trial on one fold: CRPS by seed, and for trials with a single teacher, the teacher's CRPS."""

    fold: FoldSpan
    crps: dict[str, list[float]]
    teacher_crps: dict[str, float]


class LeaderboardRow(BaseModel):
    """One trial: its settings, and its figures averaged over seeds and folds, in the target's unit or as shares.

    A setting is None where it doesn't apply: a twin has no teacher, an average has several.

    gain_over_twin: over the same student with α = 0; gain_over_best_twin: over the best student with α = 0
    """

    model_config = ConfigDict(extra="forbid")

    place: int
    trial: str
    kind: TrialKind
    choice: str
    alpha: float
    temperature: float | None
    future_sigma: float | str | None
    minutes_hours: int | None
    auxiliary: bool | None
    dropout: float
    learning_rate: float
    weight_decay: float
    crps_student: float
    crps_twin: float
    crps_teacher: float | None
    gain_over_twin: float
    gain_over_twin_se: float
    gain_over_twin_worst: float
    gain_over_best_twin: float


class StudyResult(BaseModel):
    """The recipe that a study chose, the reason, and all trials.

    recipe: ready for a retrain's form; for an average, the student's recipe, with its teachers in `averaged_teachers`
    """

    model_config = ConfigDict(extra="forbid")

    task: str
    sentence: str
    unit: str
    rule: Rule
    chosen: str
    best: str
    within_one_standard_error: list[str]
    recipe: Recipe
    averaged_teachers: list[Recipe]
    folds: list[FoldSpan]
    leaderboard: list[LeaderboardRow]
    mlflow_run_id: str
