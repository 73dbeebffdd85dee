"""The clock of a replay: historical data arrive again, hour by hour, faster than in reality."""

import datetime as dt
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, model_validator

from tutelage.contract import Contract
from tutelage.data.grid import HOUR
from tutelage.files import read_json, write_json


class Replay(Contract):
    """Historical data replayed as if they arrived now: runs of the service read no further than the replayed time.

    start, end: times in the data; the clock shows `start` when the service first starts, and stops at `end`
    """

    start: AwareDatetime
    end: AwareDatetime
    hours_per_minute: Annotated[float, Field(gt=0, le=10_000)] = Field(
        24.0, description="hours of data that pass in one real minute"
    )

    @model_validator(mode="after")
    def _forward(self) -> "Replay":
        if not self.start < self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        return self


@dataclass(frozen=True)
class Clock:
    """Maps real time to the data's time: `data` at `wall`, then `hours_per_minute` hours of data per real minute.

    It stops at `end`, and it stood still until `since`, when the service started. All times are aware.
    """

    wall: dt.datetime
    data: dt.datetime
    end: dt.datetime
    hours_per_minute: float
    since: dt.datetime | None = None

    def at(self, wall: dt.datetime) -> dt.datetime:
        """The data's time at a real time."""
        # Not divided by a timedelta: the interval between two pendulum times, which Prefect uses, can't be.
        wall = wall if self.since is None else max(wall, self.since)
        minutes = (wall - self.wall).total_seconds() / 60
        return min(self.data + minutes * self.hours_per_minute * HOUR, self.end)

    def hour_at(self, wall: dt.datetime) -> dt.datetime:
        """The last full hour of the data's time, in UTC."""
        return self.at(wall).astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)

    def moved(self, wall: dt.datetime) -> "Clock":
        """The same clock with a later real time as its reference."""
        return replace(self, wall=wall, data=self.at(wall))


def started(replayed: Replay, wall: dt.datetime, before: Clock | None) -> Clock:
    """A new clock at `wall`, or the clock `before` continued from the data's time that it showed last.

    A continued clock takes speed and end from the spec, too.
    """
    data = replayed.start if before is None else before.data
    return Clock(wall, min(data, replayed.end), replayed.end, replayed.hours_per_minute, since=wall)


def write_clock(clock: Clock, path: Path) -> None:
    """Write a clock as JSON."""
    write_json(
        path,
        {
            "wall_utc": clock.wall.astimezone(dt.UTC).isoformat(),
            "data_utc": clock.data.astimezone(dt.UTC).isoformat(),
            "end_utc": clock.end.astimezone(dt.UTC).isoformat(),
            "hours_per_minute": clock.hours_per_minute,
            "since_utc": clock.since.astimezone(dt.UTC).isoformat() if clock.since else None,
        },
    )


def read_clock(path: Path) -> Clock | None:
    """Read a clock; None where there is no file."""
    if not path.is_file():
        return None
    content = read_json(path)
    wall, data, end = (dt.datetime.fromisoformat(content[name]) for name in ("wall_utc", "data_utc", "end_utc"))
    since = content.get("since_utc")
    return Clock(wall, data, end, content["hours_per_minute"], dt.datetime.fromisoformat(since) if since else None)
