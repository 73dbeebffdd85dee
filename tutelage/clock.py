"""A replay's clock: historical data that come in again, hour after hour, faster than they once did."""

import datetime as dt
from dataclasses import dataclass, replace
from pathlib import Path

from tutelage.dataset import Replay
from tutelage.files import read_json, write_json

HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Clock:
    """At `wall`, a time of ours, the data's time is `data`; from then on so many of its hours pass a minute.

    It stops at `end`. All times are aware.
    """

    wall: dt.datetime
    data: dt.datetime
    end: dt.datetime
    hours_per_minute: float

    def at(self, wall: dt.datetime) -> dt.datetime:
        """The data's time at a time of ours."""
        # Not divided by a timedelta: the interval between two of Prefect's times (pendulum's) can't be.
        minutes = (wall - self.wall).total_seconds() / 60
        return min(self.data + minutes * self.hours_per_minute * HOUR, self.end)

    def hour_at(self, wall: dt.datetime) -> dt.datetime:
        """The last full hour of the data's time, in UTC."""
        return self.at(wall).astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)

    def moved(self, wall: dt.datetime) -> "Clock":
        """The same clock, told from a later time of ours."""
        return replace(self, wall=wall, data=self.at(wall))


def started(replayed: Replay, wall: dt.datetime, before: Clock | None) -> Clock:
    """A clock that begins now, or one that goes on where it stood when it was last read.

    Speed and end are the spec's also where it goes on.
    """
    data = replayed.start if before is None else before.data
    return Clock(wall, min(data, replayed.end), replayed.end, replayed.hours_per_minute)


def write_clock(clock: Clock, path: Path) -> None:
    """Write a clock as JSON."""
    write_json(
        path,
        {
            "wall_utc": clock.wall.astimezone(dt.UTC).isoformat(),
            "data_utc": clock.data.astimezone(dt.UTC).isoformat(),
            "end_utc": clock.end.astimezone(dt.UTC).isoformat(),
            "hours_per_minute": clock.hours_per_minute,
        },
    )


def read_clock(path: Path) -> Clock | None:
    """Read a clock back; None where there is none."""
    if not path.is_file():
        return None
    told = read_json(path)
    wall, data, end = (dt.datetime.fromisoformat(told[name]) for name in ("wall_utc", "data_utc", "end_utc"))
    return Clock(wall, data, end, told["hours_per_minute"])
