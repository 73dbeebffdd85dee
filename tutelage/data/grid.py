"""The steps of the student's table: how long they are, where they begin, and their numbers."""

import datetime as dt
from dataclasses import dataclass

from tutelage.errors import SpecError

SECOND, MINUTE = dt.timedelta(seconds=1), dt.timedelta(minutes=1)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Grid:
    """Steps of one length, numbered from 1970-01-01 UTC on.

    step: whole minutes; a whole number of them is an hour, or it is a whole number of hours and divides a day
    begin_minute: the minute of the day, UTC, at which the first step begins; less than a step
    """

    step: dt.timedelta = HOUR
    begin_minute: int = 0

    @property
    def of_day(self) -> int:
        """Steps in a day."""
        return DAY // self.step

    @property
    def of_hour(self) -> int:
        """Steps in an hour; 1 for steps of more than an hour."""
        return max(1, HOUR // self.step)

    @property
    def hours(self) -> float:
        """A step in hours; a whole number where it is one."""
        return self.step // HOUR if self.step % HOUR == dt.timedelta(0) else self.step / HOUR

    def steps(self, hours: int, *, called: str = "hours") -> int:
        """Some hours as a number of steps.

        Raises SpecError, with what they are called, where it is not a whole number.
        """
        if hours * HOUR % self.step:
            raise SpecError(f"{called}: {hours} h are not a whole number of student_step, {self.name}")
        return hours * HOUR // self.step

    def covering(self, hours: int) -> int:
        """The number of steps that some hours reach into, from the beginning of one on."""
        return -(-hours * HOUR // self.step)

    def index(self, time: dt.datetime) -> int:
        """The number of the step that an aware time is in."""
        return (time - self._begin) // self.step

    def time(self, index: int) -> dt.datetime:
        """The beginning of a step, UTC."""
        return self._begin + index * self.step

    def floor(self, time: dt.datetime) -> dt.datetime:
        """The beginning of the step that an aware time is in, UTC."""
        return self.time(self.index(time))

    @property
    def name(self) -> str:
        """A step in words: 15 min, 1 h."""
        return f"{self.step // MINUTE} min" if self.step < HOUR else f"{self.step // HOUR} h"

    @property
    def plural(self) -> str:
        """What several steps are called: hours, steps of 15 min."""
        return "hours" if self.step == HOUR else f"steps of {self.name}"

    @property
    def _begin(self) -> dt.datetime:
        return EPOCH + self.begin_minute * MINUTE


HOURLY = Grid()
"""Full hours of UTC."""
