"""The record of a verification, and of the retrain that it asked for."""

import datetime as dt
from pathlib import Path

from runtime.paths import ISSUE_FORMAT, home
from schemas.monitor import HealthManifest
from tutelage.files import read_json, write_json

AS_OF, HEALTH, ASKED = "as-of=", "health.json", "asked_utc"


def health_folder(task: str, end: dt.datetime) -> Path:
    """Where a forecaster's verification up to a time (UTC) is."""
    return home() / "monitoring" / task / f"{AS_OF}{end:{ISSUE_FORMAT}}"


def record_request(health: HealthManifest) -> None:
    """Note that a verification has asked for a retrain; until then it asks again."""
    path = health.folder / HEALTH
    write_json(path, read_json(path) | {ASKED: health.as_of_utc.isoformat()})


def asked_before(task: str, version: str, end: dt.datetime, days: int) -> dt.datetime | None:
    """When a retrain was last asked for because of this version; None: not in the days up to `end`."""
    asked = []
    for path in health_folder(task, end).parent.glob(f"{AS_OF}*/{HEALTH}"):
        state = read_json(path)
        if state.get("model_version") == version and state.get(ASKED):
            asked.append(dt.datetime.fromisoformat(state[ASKED]))
    return max((time for time in asked if dt.timedelta(0) <= end - time < dt.timedelta(days=days)), default=None)
