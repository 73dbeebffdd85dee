"""The study's contracts: what its form takes, what its stages hand on, and what comes out."""

import datetime as dt
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.manifests import Manifest
from schemas.parameters import DatedParameters
from tutelage.choice import Kind, Rule
from tutelage.recipe import Recipe
from tutelage.study import Space


class StudyParameters(DatedParameters):
    """Which recipes of a forecaster are compared, and on which folds of its history."""

    lookback_hours: int = Field(
        168, ge=1, le=1008, title="Lookback [h]", description="Past hours that the student sees."
    )
    space: Space = Field(Space(), title="Space", description="What is varied; all values are crossed.")
    draws: int | None = Field(
        None,
        ge=1,
        le=500,
        title="Draws",
        description="So many recipes, drawn from the space by the seed. Empty: all of them.",
    )
    recipe: Recipe = Field(Recipe(), title="Recipe", description="All that is not varied.")
    rule: Rule = Field(
        "one-standard-error",
        title="Rule",
        description="one-standard-error: the lowest alpha whose CRPS is within one standard error of the lowest. "
        "average: the average of all recipes, unless the twin is within one standard error.",
    )
    history_days: int | None = Field(
        100,
        ge=10,
        le=20000,
        title="History [days]",
        description="Days before the test part that the folds lie in. Empty: all there are.",
    )
    folds: int = Field(
        4, ge=2, le=50, title="Folds", description="Rolling origins, the last stretch at the history's end."
    )
    score_days: int = Field(
        12, ge=2, le=365, title="Scored [days]", description="Days after a fold's training that it is scored on."
    )
    train_days: int | None = Field(
        None,
        ge=4,
        le=20000,
        title="Training [days]",
        description="Days of training and validation before each scored stretch. Empty: all of the history so far.",
    )
    validation_share: float = Field(
        0.2, ge=0.05, le=0.5, title="Validation share", description="Last share of them, for early stopping."
    )
    test_days: int = Field(
        120, ge=0, le=2000, title="Test [days]", description="Last days of the data, which the study never reads."
    )
    seeds: int = Field(3, ge=1, le=50, title="Seeds", description="Students of each recipe, averaged before all else.")
    seed: int = Field(0, ge=0, le=2**31 - 1, title="Seed", description="The same seed, data and code: the same result.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", title="Device", description="auto takes CUDA where there is one, then MPS, then the CPU."
    )


class FoldSpan(BaseModel):
    """One fold: what it learns from ends at `score_start_utc`; it is scored up to, not including, `end_utc`."""

    number: int
    learn_days: int
    score_start_utc: dt.datetime
    end_utc: dt.datetime


class FoldsManifest(Manifest):
    """The folds of a history, the earliest first."""

    folds: list[FoldSpan]


class LabelsManifest(Manifest):
    """A teacher's soft labels of a fold's training windows, and the teacher's own CRPS on the scored stretch."""

    folder: Path
    digest: str
    teacher_crps: float


class ScoresManifest(Manifest):
    """CRPS on the scored stretch of each recipe's students: one list a recipe, one value a seed."""

    crps: list[list[float]]


class FoldScores(Manifest):
    """What one fold said of each trial: CRPS by seed, and of those with one teacher that teacher's own CRPS."""

    fold: FoldSpan
    crps: dict[str, list[float]]
    teacher_crps: dict[str, float]


class LeaderboardRow(BaseModel):
    """One trial: its settings, and its figures averaged over seeds and folds, in the target's unit or as shares.

    An empty setting is one that it does not have: a twin has no teacher, an average many.
    gain_vs_twin: against the same student with α = 0; gain_vs_best_twin: against the best of all with α = 0
    """

    model_config = ConfigDict(extra="forbid")

    place: int
    trial: str
    kind: Kind
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
    gain_vs_twin: float
    gain_vs_twin_se: float
    gain_vs_twin_worst: float
    gain_vs_best_twin: float


class StudyResult(BaseModel):
    """The recipe that a study chose, why, and all that it stood against.

    recipe: ready for a retrain's form; of an average, the student's (averaged_teachers are then its teachers)
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
