"""What the stages hand on: small values that say where the bytes are, what their digest is and how many there are."""

import datetime as dt
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from schemas.quality import RuleCount


class Manifest(BaseModel):
    """A stage's result."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReadingsManifest(Manifest):
    """Readings as they were read, under the digest of their bytes."""

    path: Path
    digest: str
    rows: int
    series: int
    first_utc: dt.datetime
    last_utc: dt.datetime
    source_files: list[str]


class ValidatedManifest(Manifest):
    """Readings on a regular grid with all that breaks a rule set to null, and the rows that were caught."""

    path: Path
    digest: str
    rows: int
    quarantine_path: Path
    quarantined_rows: int
    rules: list[RuleCount]

    def count(self, rule: str) -> int:
        """Rows (or values) that break a rule, over all columns."""
        return sum(found.rows for found in self.rules if found.rule == rule)


class SpanManifest(BaseModel):
    """A part of the history and its windows: from start up to, not including, end."""

    start_utc: dt.datetime
    end_utc: dt.datetime
    windows: int


class FeaturesManifest(Manifest):
    """The student's hourly table, the teacher's views, and all that was fitted on the training part."""

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
    hours: int
    null_hours: int


class RunManifest(Manifest):
    """The MLflow runs of one retrain: the parent and its children by name, and what identifies their work."""

    key: str
    experiment_id: str
    run_id: str
    children: dict[str, str]


class TrainedManifest(Manifest):
    """Trained networks: the folder with their weights, and how their training went, by name.

    best_epoch: an ensemble's is the mean of its members'
    """

    folder: Path
    digest: str
    best_epoch: dict[str, int]
    best_validation_loss: dict[str, float]
    epochs: int


class EvaluationManifest(Manifest):
    """The figures of all forecasts of the test part, the gains with their intervals, and what follows from them.

    metrics: of student and twin the means over all pairs; `chosen` is the one of the first pair that may be registered;
        `no_privilege`, where there is a control, are students of teachers that saw nothing more than they
    gate_by_hour: how far the teacher was trusted in each hour of the horizon, from 0 to 1; None: without a gate
    chosen: student or twin, by the validation part
    beats_champion: None where there is no champion, or nothing to compare on
    champion_as: which of the champion's students was compared with: the registered one, or the one that was judged
        before its refit
    """

    folder: Path
    digest: str
    metrics: dict[str, dict[str, float]]
    validation_crps: dict[str, float]
    gain_vs_twin: dict[str, float]
    gain_vs_no_privilege: dict[str, float] | None
    gain_by_pair: list[float]
    gate_by_hour: list[float] | None
    gain_vs_champion: dict[str, float] | None
    champion_version: str | None
    beats_champion: bool | None
    champion_as: Literal["registered", "judged"] | None
    chosen: Literal["student", "twin"]
    leak_guard: dict[str, Any]


class BacktestManifest(Manifest):
    """A backtest's table and plot; the gains are those of the mean CRPS over all stretches.

    left_out: stretches that couldn't be judged
    gain_vs_no_privilege: None without a control
    origins_with_gain: stretches on which the student was better than its twin
    """

    folder: Path
    run_id: str
    origins: int
    left_out: int
    gain_vs_twin: float
    gain_vs_no_privilege: float | None
    origins_with_gain: int


class RefitManifest(Manifest):
    """The winner trained once more, on all the history from start up to end, and for how many epochs, by network."""

    folder: Path
    digest: str
    start_utc: dt.datetime
    end_utc: dt.datetime
    windows: int
    epochs: dict[str, int]
    leak_checks: int


class RegisteredManifest(Manifest):
    """One version of a registered model, and the aliases that it was given."""

    name: str
    version: str
    aliases: list[str]
    source: Literal["student", "twin"]
    reason: str
