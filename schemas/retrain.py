"""The contracts of the retrain flow: its parameters, and the results of its stages."""

import datetime as dt
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.manifests import Manifest
from schemas.quality import RuleCount
from schemas.training import TrainingParameters
from tutelage.data.windows import Parts, Span
from tutelage.distil.recipe import Recipe
from tutelage.forecasts import Contender
from tutelage.judge.comparison import NEGLIGIBLE, Floor, Gain, Gains
from tutelage.judge.metrics import Scores
from tutelage.judge.promotion import LEAST_WEEKS, allowed_p
from tutelage.judge.series import SeriesScore

Promotion = Literal["automatic", "approval", "never"]


class RetrainParameters(TrainingParameters):
    """Which forecaster to retrain, on what history, how, and what to do with the result."""

    test_days: int = Field(
        120, ge=7, le=2000, title="Test [days]", description="Days at the end of the data, used only for the verdict."
    )
    refit: bool = Field(
        True,
        title="Refit",
        description="After the verdict, train the chosen network again on all parts, for the chosen numbers of epochs, "
        "and register the result. Otherwise the evaluated network is registered, which has not seen the test part.",
    )
    promotion: Promotion = Field(
        "automatic",
        title="Promotion",
        description="automatic: a version that beats the simple forecasts and the champion becomes the champion. "
        "approval: the version is registered as challenger, and the approve flow asks a person. "
        "never: the version is only registered as challenger.",
    )
    reason: str | None = Field(
        None, max_length=1000, title="Reason", description="Reason for this retrain; the monitor fills it in."
    )

    @model_validator(mode="after")
    def _can_be_refit(self) -> "RetrainParameters":
        if self.refit and self.recipe.distillation.gate == "windows":
            raise ValueError(
                "refit: a gate by windows belongs to the windows that the evaluated student learned from, and a refit "
                "learns from more; set refit to false, or the gate to hours"
            )
        return self


class ReadingsManifest(Manifest):
    """Readings as they were read, in a file named by its digest."""

    path: Path
    digest: str
    rows: int
    series: int
    first_utc: dt.datetime
    last_utc: dt.datetime
    source_files: list[str]


class ValidatedManifest(Manifest):
    """Readings on a regular grid with everything that breaks a rule set to null, and the rows that break rules."""

    path: Path
    digest: str
    rows: int
    quarantine_path: Path
    quarantined_rows: int
    rules: list[RuleCount]

    def count(self, rule: str) -> int:
        """The number of rows (or values) that break a rule, over all columns."""
        return sum(count.rows for count in self.rules if count.rule == rule)


class SpanManifest(BaseModel):
    """A part of the history and its windows: from start up to, not including, end.

    minutes, auxiliary: shares of its hours with readings within the hour, and of the privileged columns' values
    """

    start_utc: dt.datetime
    end_utc: dt.datetime
    windows: int
    minutes: float = 1.0
    auxiliary: float = 1.0


class FeaturesManifest(Manifest):
    """The student's hourly table, the teacher's readings within each hour, and the scalers and bins.

    task: name of the forecasting task, household-24h
    unused_days: whole days of the data before the history, which nothing learns from
    """

    folder: Path
    digest: str
    task: str
    dataset: str
    target: str
    unit: str
    horizon_hours: int
    lookback_hours: int
    train: SpanManifest
    validation: SpanManifest
    test: SpanManifest
    steps: int
    null_steps: int
    unused_days: int

    @property
    def history_days(self) -> int:
        """Days of training and validation together."""
        return (self.validation.end_utc - self.train.start_utc).days

    @property
    def history_sentence(self) -> str:
        """How long the history is, and what it leaves unused."""
        said = f"The history, training and validation part, is {self.history_days} days"
        if not self.unused_days:
            return f"{said}; no whole day before it is left unused."
        before = "the day before it is" if self.unused_days == 1 else f"the {self.unused_days} days before it are"
        return f"{said}; {before} left unused (history_days)."

    @property
    def privileged(self) -> set[str]:
        """The kinds of privileged data, of `minutes` and `auxiliary`, that the history before the test part has."""
        before = (self.train, self.validation)
        return {name for name in ("minutes", "auxiliary") if any(getattr(part, name) for part in before)}

    def with_views_there(self, recipe: Recipe) -> Recipe:
        """The recipe without the teachers' views of which the history has no data."""
        return recipe.without_views({"minutes", "auxiliary"} - self.privileged)

    @property
    def parts(self) -> Parts:
        """The parts of the history as a value of the core."""
        spans = (Span(part.start_utc, part.end_utc) for part in (self.train, self.validation, self.test))
        return Parts(*spans)


class PreviewManifest(Manifest):
    """What is known of a dataset without a training: see `tutelage.judge.preview`."""

    scores: dict[Contender, Scores]
    within_steps: float | None


class TrainedManifest(Manifest):
    """Trained networks: the folder with their weights, and the outcome of their training by name.

    best_epoch: for an ensemble, the mean over its members
    weights: of each view's teachers in the soft labels, by hour of the horizon; None: all equal, or no teachers
    """

    folder: Path
    digest: str
    best_epoch: dict[str, int]
    best_validation_loss: dict[str, float]
    epochs: int
    weights: dict[str, list[float]] | None = None


class LeakCheck(BaseModel):
    """The leak check of the exported students: whether it passed, and the number of forecasts checked."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    checked: int


class ChampionComparison(BaseModel):
    """The comparison of the candidate with the champion.

    gain: None where there is no window to compare on
    compared_as: the champion's student in the comparison: the registered one, or the one that was evaluated before its
        refit; None where there is no window to compare on
    since_days: days since the comparison before; weeks: how many the compared issue times make up
    differences: in what the champion is none of this dataset's and horizon's, so that it can't be compared
    """

    model_config = ConfigDict(frozen=True)

    version: str
    gain: Gain | None
    compared_as: Literal["registered", "evaluated"] | None
    since_days: float = 0.0
    weeks: float = 0.0
    differences: tuple[str, ...] = ()

    @property
    def allowed(self) -> float:
        """The greatest p with which the candidate replaces the champion."""
        return allowed_p(dt.timedelta(days=self.since_days))

    @property
    def is_beaten(self) -> bool:
        """Whether the candidate is better beyond what repeated comparisons bring by luck."""
        gain = self.gain
        if gain is None or self.weeks < LEAST_WEEKS:
            return False
        return gain.estimate > NEGLIGIBLE and gain.p <= self.allowed


class Evaluation(BaseModel):
    """The verdict's figures, the content of `evaluation.json`. Scores are in the target's unit, gains are shares.

    Of several series, each window counts in units of its series' size (`tutelage.data.sizes`).

    scores: for students and twins, means over all replicates; `chosen` is the first replicate's network that may be
        registered
    gate_by_hour: the gate in each hour of the horizon, from 0 to 1; None: no gate
    validation_crps: on the held-out blocks of the history, which epochs and weights were chosen on
    base_weights: of the simple forecasts that the chosen network is averaged with; None: with nothing
    chosen: student or twin, by the held-out blocks
    is_constant: whether it forecasts the same for every window of the test part
    worst_series: of several series those where the chosen network is worst against the floor, worst first
    rests_on: by part of the input, how much worse the chosen forecast is with another window's: the CRPS's rise
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: dict[Contender, Scores]
    validation_crps: dict[Contender, float]
    floor: Floor
    gain_over_twin: Gain
    gain_over_unprivileged: Gain | None
    gain_by_replicate: list[float]
    gate_by_hour: list[float] | None
    base_weights: dict[Contender, float] | None
    champion: ChampionComparison | None
    chosen: Contender
    is_constant: bool = False
    worst_series: list[SeriesScore] = []
    rests_on: dict[str, float] = {}
    leak_check: LeakCheck

    @property
    def network_share(self) -> float | None:
        """The chosen network's weight; None: it is averaged with nothing."""
        return None if self.base_weights is None else max(0.0, 1 - sum(self.base_weights.values()))

    @property
    def gains(self) -> Gains:
        """The students' gains as a value of the core."""
        return Gains(self.gain_over_twin, self.gain_over_unprivileged, self.gain_by_replicate)


class EvaluationManifest(Manifest):
    """The evaluation on the test part, and the folder with its plots and files."""

    folder: Path
    digest: str
    evaluation: Evaluation


class RefitManifest(Manifest):
    """The chosen network, trained again on the whole history from start up to end; epochs by network."""

    folder: Path
    digest: str
    start_utc: dt.datetime
    end_utc: dt.datetime
    windows: int
    epochs: dict[str, int]
    leak_checks: int


class RegisteredManifest(Manifest):
    """A version of a registered model, and the aliases that it got."""

    name: str
    version: str
    aliases: list[str]
    source: Contender
    reason: str
