"""The verdict of a retrain, the content of `verdict.json`."""

import datetime as dt

from pydantic import BaseModel, ConfigDict

from schemas.retrain import Evaluation, SpanManifest
from tutelage.forecasts import Contender


class Registered(BaseModel):
    """The version that the retrain registered; `alias` is the highest that it got."""

    name: str
    version: str
    alias: str
    source: Contender


class Refit(BaseModel):
    """The refit of the registered version, on all data before `until_utc`; epochs by network."""

    until_utc: dt.datetime
    windows: int
    epochs: dict[str, int]


class QualityCounts(BaseModel):
    """The number of readings, and of those that break each quality rule."""

    readings: int
    filled_rows: int
    frozen_rows: int
    missing_rows: int
    missing_values: int
    out_of_range_values: int
    duplicate_rows: int
    off_grid_rows: int
    unreadable_rows: int
    steps: int
    null_steps: int


class Verdict(BaseModel):
    """Were the privileged data worth it? Scores are in the target's unit, gains are shares, times are UTC.

    parts: train, validation and test; history: how long it is, and what it leaves unused, as a sentence
    """

    model_config = ConfigDict(extra="forbid")

    task: str
    conclusion: str
    sentence: str
    unit: str
    evaluation: Evaluation
    quality: QualityCounts
    registered: Registered
    refit: Refit | None
    parts: dict[str, SpanManifest]
    history: str = ""
    data_digest: str
    mlflow_run_id: str
    seed: int
