"""The contracts of the monitor flow."""

import datetime as dt
from pathlib import Path

from schemas.manifests import Manifest
from schemas.parameters import DatedParameters


class MonitorParameters(DatedParameters):
    """Which forecaster's stored forecasts to verify, and at what time."""


class HealthManifest(Manifest):
    """The verification of stored forecasts: the champion's figures of the last days, and the limits that they break.

    hours: verified hours of this version; with 0, skill and coverage are None, and skill is where naive misses nothing
    asked_utc: when a retrain was asked for because of this version, in the cooldown before; None: it was not
    """

    folder: Path
    task: str
    as_of_utc: dt.datetime
    model_version: str
    hours: int
    skill: float | None
    coverage_80: float | None
    drift: dict[str, float]
    broken: list[str]
    asked_utc: dt.datetime | None = None

    @property
    def asks(self) -> bool:
        """Whether to ask for a retrain now."""
        return bool(self.broken) and self.asked_utc is None
