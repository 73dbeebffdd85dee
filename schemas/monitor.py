"""The contracts of the monitor flow."""

import datetime as dt
from pathlib import Path

from schemas.manifests import Manifest
from schemas.parameters import DatedParameters


class MonitorParameters(DatedParameters):
    """Which forecaster's stored forecasts to verify, and at what time."""


class HealthManifest(Manifest):
    """The verification of stored forecasts: figures of the last days, and the limits of the spec that they break."""

    folder: Path
    task: str
    as_of_utc: dt.datetime
    model_version: str
    hours: int
    skill: float
    coverage_80: float
    drift: dict[str, float]
    broken: list[str]
