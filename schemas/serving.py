"""What the flows take that work with registered forecasters, and what is stored of a forecast."""

import datetime as dt
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.manifests import Manifest
from tutelage.dataset import DatasetSpec, Role


class TaskParameters(BaseModel):
    """Which forecaster, and at what time: nothing after it is seen."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(
        "household",
        pattern=r"^[a-z][a-z0-9-]*$",
        title="Dataset",
        description="Name of a dataset spec in deployments/datasets.",
    )
    horizon_hours: int = Field(
        24,
        ge=1,
        le=168,
        title="Horizon [h]",
        description="Hours to forecast. The model is called dataset-horizon.",
    )
    as_of: dt.datetime | None = Field(
        None,
        title="As of",
        description="Nothing after this time is read; without a zone it is UTC. Empty: the end of the data.",
    )

    @model_validator(mode="after")
    def _clock(self) -> Self:
        if self.as_of is not None and self.as_of.tzinfo is None:
            self.as_of = self.as_of.replace(tzinfo=dt.UTC)
        return self

    @property
    def task(self) -> str:
        """The forecasting task, which is also the registered model's name: household-24h."""
        return f"{self.dataset}-{self.horizon_hours}h"


class ForecastParameters(TaskParameters):
    """Which forecaster speaks, and at what time."""


class MonitorParameters(TaskParameters):
    """Whose stored forecasts are judged, and at what time."""


def model_columns(spec: DatasetSpec) -> list[str]:
    """The columns that a registered forecaster takes, in their order."""
    return ["series_id", "time_utc", *spec.names(Role.OBSERVED), *spec.names(Role.KNOWN_FUTURE)]


class ChampionManifest(Manifest):
    """A version of a registered model, downloaded, and how many hours it takes and gives, how far it has seen."""

    folder: Path
    name: str
    version: str
    lookback_hours: int
    horizon_hours: int
    trained_until_utc: dt.datetime


class HoursManifest(Manifest):
    """The hours that a forecast is made from: one row an hour and series."""

    path: Path
    digest: str
    issue_time_utc: dt.datetime


class ForecastManifest(Manifest):
    """A forecast as it was issued: the file, by which version, and the series that got none.

    fresh: whether this run wrote it; what was issued before stays as it is
    """

    path: Path
    task: str
    issue_time_utc: dt.datetime
    model_version: str
    rows: int
    filled_hours: int
    refused: list[str]
    fresh: bool


class HealthManifest(Manifest):
    """How stored forecasts have met what came true: figures of the last days, and what of the spec they break."""

    folder: Path
    task: str
    as_of_utc: dt.datetime
    model_version: str
    hours: int
    skill: float
    coverage_80: float
    drift: dict[str, float]
    broken: list[str]
