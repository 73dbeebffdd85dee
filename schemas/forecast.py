"""The contracts of the forecast flow, and the columns of a registered forecaster."""

import datetime as dt
from pathlib import Path

from schemas.manifests import Manifest
from schemas.parameters import DatedParameters
from tutelage.data.dataset import DatasetSpec, Role


class ForecastParameters(DatedParameters):
    """Which forecaster to use, and at what time."""


def model_columns(spec: DatasetSpec) -> list[str]:
    """The input columns of a registered forecaster, in order."""
    return ["series_id", "time_utc", *spec.names(Role.OBSERVED), *spec.names(Role.KNOWN_FUTURE)]


class ChampionManifest(Manifest):
    """A downloaded version of a registered model, its lookback and horizon, and the end of its training data."""

    folder: Path
    name: str
    version: str
    lookback_hours: int
    complete_hours: int
    horizon_hours: int
    trained_until_utc: dt.datetime


class RecentManifest(Manifest):
    """The input of a forecast: one row per step and series."""

    path: Path
    digest: str
    issue_time_utc: dt.datetime


class ForecastManifest(Manifest):
    """An issued forecast: its file, the version that issued it, and the series without a forecast.

    fresh: whether this run wrote it; an issued forecast never changes
    """

    path: Path
    task: str
    issue_time_utc: dt.datetime
    model_version: str
    rows: int
    filled_hours: int | float
    refused: list[str]
    fresh: bool
