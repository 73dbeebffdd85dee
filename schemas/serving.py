"""What the flows take that work with registered forecasters, and what is stored of a forecast."""

import datetime as dt
from pathlib import Path

from schemas.manifests import Manifest
from schemas.parameters import DatedParameters
from tutelage.dataset import DatasetSpec, Role


class ForecastParameters(DatedParameters):
    """Which forecaster speaks, and at what time."""


class MonitorParameters(DatedParameters):
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
