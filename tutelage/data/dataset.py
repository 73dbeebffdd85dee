"""The dataset as a contract: where readings come from, what each column means, who may see it.

`load_dataset_spec` turns a YAML file into a `DatasetSpec` or rejects it with a sentence that names the key. The rest of
the system knows a dataset only through its spec.
"""

import datetime as dt
import zoneinfo
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import holidays
from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from tutelage.contract import Contract, load_contract
from tutelage.data.grid import DAY, HOUR, MINUTE, Grid
from tutelage.data.replay import Replay
from tutelage.data.rules import Issued, Monitoring, QualityRules, Serving
from tutelage.data.source import Source
from tutelage.errors import SpecError

OTHER_TARGET = "--"
"""Stands in a dataset's name before another target than its spec's."""
KEY = ["series_id", "time_utc"]
"""The columns that no two rows of a table of readings, or of hours, have in common."""


def _known_zone(name: str) -> str:
    if name not in zoneinfo.available_timezones():
        raise ValueError(f"{name!r} is not an IANA time zone")
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
DATASET_NAME = r"^[a-z][a-z0-9-]*$"
"""Small letters, digits and hyphens, a letter first."""


class Role(StrEnum):
    """Who sees a column: all (`observed`), the teacher (`privileged`), all and ahead of time (`known_future`)."""

    OBSERVED = "observed"
    PRIVILEGED = "privileged"
    KNOWN_FUTURE = "known_future"


class Timestamp(Contract):
    """The column that holds the time, or columns to join with a blank; the format; the zone; what a time marks."""

    columns: tuple[str, ...] = Field(min_length=1)
    format: str = "%Y-%m-%d %H:%M:%S"
    timezone: TimeZone = Field(
        description="IANA time zone of the clock that recorded the times; not used for times with an offset (%z)"
    )
    marks: Literal["start", "end"] = Field("start", description="whether a time is a reading's start or its end")
    issued: Issued | None = Field(
        None, description="known_future columns are forecasts, with the time of their issue; empty: they are plans"
    )
    hours: Literal["clock", "utc"] = Field(
        "clock", description="whether hours begin where the clock of `timezone` shows :00, or where UTC's does"
    )

    @property
    def begin_minute(self) -> int:
        """The minute of the UTC hour at which hours begin: 30 in Kolkata; 0 where it depends on the season."""
        seasons = {minute % 60 for minute in self.midnights}
        return seasons.pop() if self.hours == "clock" and len(seasons) == 1 else 0

    @property
    def midnights(self) -> set[int]:
        """The minutes of the UTC day at which days begin, one or, on a clock with summer time, two."""
        if self.hours == "utc":
            return {0}
        zone = zoneinfo.ZoneInfo(self.timezone)
        return {int(dt.datetime(2024, month, 1, tzinfo=zone).timestamp()) // 60 % 1440 for month in (1, 7)}


class Column(Contract):
    """One measured column: its name here and in the source, its role, its hourly aggregation, its valid range."""

    name: Name = Field(description="name in tutelage, ending in its unit: global_active_power_kw")
    source: str = Field(description="the column's name in the source")
    role: Role
    unit: str
    aggregation: Literal["mean", "sum"] = "mean"
    reading: Literal["interval", "register"] = Field(
        "interval", description="register: a running total, whose differences are the readings"
    )
    minimum: float
    maximum: float
    since: AwareDatetime | None = Field(
        None, description="a privileged column's first time; empty: it always was there"
    )
    until: AwareDatetime | None = Field(None, description="a privileged column is gone from then on; empty: it stays")

    @property
    def ends(self) -> bool:
        """Whether there are times without it, of which a file may lack the column."""
        return self.since is not None or self.until is not None

    @model_validator(mode="after")
    def _range(self) -> "Column":
        if not self.minimum < self.maximum:
            raise ValueError(f"minimum {self.minimum} is not below maximum {self.maximum}")
        if self.ends and self.role is not Role.PRIVILEGED:
            raise ValueError(f"since, until: a student needs a column with the role {self.role.value!r} at any time")
        if self.since is not None and self.until is not None and not self.since < self.until:
            raise ValueError(f"since {self.since} is not before until {self.until}")
        if self.reading == "register" and self.aggregation != "sum":
            raise ValueError("a register's differences add up to an hour's: aggregation must be sum")
        return self


class StepChange(Contract):
    """A time from which on the readings have another step: minutes of a campaign, then hours."""

    since: AwareDatetime
    raw_step: dt.timedelta


class Calendar(Contract):
    """The time zone and the country of the calendar features: hour, weekday and public holidays."""

    timezone: TimeZone
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = Field(
        None, description="ISO 3166 country code for public holidays; empty: no holidays"
    )
    region: str | None = Field(None, description="the country's part whose holidays count, too: BY, VIC; empty: none")

    @model_validator(mode="after")
    def _has_holidays(self) -> "Calendar":
        known = holidays.list_supported_countries()
        if self.country is None and self.region is not None:
            raise ValueError(f"region {self.region!r} needs a country")
        if self.country is not None and self.country not in known:
            raise ValueError(f"country: no holidays are known of {self.country!r}; leave it empty for none")
        if self.country is not None and self.region is not None and self.region not in known[self.country]:
            raise ValueError(f"region: {self.region!r} is none of {self.country}'s: {', '.join(known[self.country])}")
        return self


class DatasetSpec(Contract):
    """The contract of one dataset. See docs/datasets.md for the keys, deployments/datasets/ for the specs in use."""

    name: Annotated[str, Field(pattern=DATASET_NAME)]
    description: str
    source: Source
    timestamp: Timestamp
    series_column: str | None = Field(None, description="column with the series id; empty: one series")
    series_from: Literal["column", "file", "header"] = Field(
        "column",
        description="file: each file is a series of its name; header: each column that matches the target's `source`, "
        "such as meter_*, is one",
    )
    target: Name
    raw_step: dt.timedelta
    step_changes: tuple[StepChange, ...] = Field((), description="later steps, by time; empty: it stays raw_step")
    event_hold: Annotated[dt.timedelta, Field(gt=dt.timedelta(0))] | None = Field(
        None,
        description="rows are written on a change only, at any time; a value holds until the next, at most this long; "
        "empty: a row each raw step",
    )
    student_step: dt.timedelta = Field(description="PT5M to P1D: it divides an hour, or is hours that divide a day")
    columns: tuple[Column, ...] = Field(min_length=1)
    calendar: Calendar
    quality: QualityRules = QualityRules()
    serving: Serving = Serving()
    monitoring: Monitoring = Monitoring()
    replay: Replay | None = Field(None, description="empty: the data are not replayed")

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetSpec":
        for what, values in {
            "name": [column.name for column in self.columns],
            "source": [column.source for column in self.columns],
        }.items():
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"columns: {what} {twice[0]!r} occurs twice, so its roles overlap")
        reserved = {"series_id", "time_utc", "complete_share", "readings"} & {c.name for c in self.columns}
        if reserved:
            raise ValueError(f"columns: name {sorted(reserved)[0]!r} is taken by tutelage itself")
        by_name = {column.name: column for column in self.columns}
        if self.target not in by_name:
            raise ValueError(f"target: {self.target!r} is not one of the columns")
        if by_name[self.target].role is not Role.OBSERVED:
            raise ValueError(
                f"target: {self.target!r} has the role {by_name[self.target].role.value!r}; "
                "a target must be observed, or the student could not see its own past"
            )
        if self.series_from != "column" and self.series_column is not None:
            raise ValueError(f"series_column: series_from is {self.series_from}, so no column names the series")
        if self.series_from == "header" and len(self.columns) != 1:
            raise ValueError("series_from: with header there is one column, the target, whose source is a pattern")
        later = [("step_changes", change.raw_step) for change in self.step_changes]
        for key, step in [("raw_step", self.raw_step), *later]:
            if step <= dt.timedelta(0):
                raise ValueError(f"{key}: {step} is not above zero")
            if self.student_step < step:
                raise ValueError(f"student_step: {self.student_step} is finer than {key} {step}")
            if self.student_step % step:
                raise ValueError(f"student_step: {self.student_step} is not a multiple of {key} {step}")
        self._require_grid()
        self._require_forecasts()
        times = [change.since for change in self.step_changes]
        for time in times:
            if time != self.grid.floor(time):
                raise ValueError(
                    f"step_changes: at {time} no student_step begins on the clock {self.timestamp.timezone}"
                )
        if times != sorted(set(times)):
            raise ValueError("step_changes: each must be later than the one before")
        if self.event_hold is not None:
            against = [f"column {column.name} a sum" for column in self.columns if column.aggregation == "sum"]
            # The file would end with its plans, and the last readings would hold until then.
            against += [f"known_future column {name}" for name in self.names(Role.KNOWN_FUTURE)]
            against += ["step_changes"] if self.step_changes else []
            against += ["marks: end"] if self.timestamp.marks == "end" else []
            if against:
                raise ValueError(
                    f"event_hold: a value that holds until the next one can't go together with {against[0]}"
                )
        return self

    def _require_grid(self) -> None:
        """Raise ValueError where steps don't make up whole hours and days, each of which begins like the last."""
        step = self.student_step
        if step < 5 * MINUTE or (HOUR % step if step < HOUR else DAY % step or step % HOUR) or step % MINUTE:
            raise ValueError(
                f"student_step: {step} is not 5 minutes or more that divide an hour, or hours that divide a day"
            )
        if step > HOUR and len(self.timestamp.midnights) > 1:
            raise ValueError(
                f"student_step: with summer time in {self.timestamp.timezone}, steps of {step} don't always begin at "
                "the same hour; say timestamp.hours: utc for steps of UTC's day, or timezone: UTC for a file of dates"
            )

    def _require_forecasts(self) -> None:
        """Raise ValueError where forecasts as they were issued can't go together with what else the spec says."""
        issued = self.timestamp.issued
        if issued is None:
            return
        if not self.names(Role.KNOWN_FUTURE):
            raise ValueError("timestamp.issued: no column has the role known_future")
        if self.step_changes or self.event_hold is not None:
            raise ValueError("timestamp.issued: it can't go together with step_changes or event_hold")
        if issued.step is not None and issued.step % self.raw_step:
            raise ValueError(f"timestamp.issued.step: {issued.step} is not a multiple of raw_step {self.raw_step}")

    def ahead_hours(self, horizon_hours: int) -> int | None:
        """How long before its hour a forecast must have been issued to be seen; None: there are no issue times."""
        return None if self.timestamp.issued is None else horizon_hours

    @property
    def grid(self) -> Grid:
        """The steps of the student's table."""
        begin = self.timestamp.begin_minute if self.student_step <= HOUR else min(self.timestamp.midnights)
        return Grid(self.student_step, begin % (self.student_step // MINUTE))

    @property
    def finest_step(self) -> dt.timedelta:
        """The readings' shortest step."""
        return min([self.raw_step, *(change.raw_step for change in self.step_changes)])

    @property
    def readings_per_step(self) -> int:
        """Raw readings in one full step of the student at the finest raw step."""
        return self.student_step // self.finest_step

    @property
    def target_column(self) -> Column:
        """The column that is forecast."""
        return next(column for column in self.columns if column.name == self.target)

    def of_student(self) -> "DatasetSpec":
        """The spec without the privileged columns, which production's files need not have."""
        return self.model_copy(update={"columns": tuple(c for c in self.columns if c.role is not Role.PRIVILEGED)})

    def names(self, *roles: Role) -> list[str]:
        """The names of the columns in these roles (no roles: all), the target first, then in the spec's order."""
        chosen = [c.name for c in self.columns if not roles or c.role in roles]
        return sorted(chosen, key=lambda name: name != self.target)


def load_dataset_spec(path: Path) -> DatasetSpec:
    """Read a dataset spec from YAML. `seattle--temp-min-c.yaml` is `seattle.yaml` with the target temp_min_c.

    Raises SpecError with a sentence that names the file and the key.
    """
    name, _, target = path.stem.partition(OTHER_TARGET)
    if target and not path.is_file():
        return _with_target(load_dataset_spec(path.with_name(f"{name}.yaml")), target)
    spec = load_contract(path, DatasetSpec, called="dataset spec", many="datasets")
    if spec.name != path.stem:
        raise SpecError(f"dataset spec {path.name}: name: {spec.name!r} is not the file's name, {path.stem!r}")
    return spec


def _with_target(spec: DatasetSpec, target: str) -> DatasetSpec:
    """The spec with another of its observed columns as target, named as tasks are, with dashes."""
    targets = {column.name.replace("_", "-"): column.name for column in spec.columns if column.role is Role.OBSERVED}
    if target not in targets:
        known = ", ".join(f"{spec.name}{OTHER_TARGET}{name}" for name in targets)
        raise SpecError(f"dataset {spec.name}{OTHER_TARGET}{target}: no observed column is that; there are {known}")
    return spec.model_copy(update={"name": f"{spec.name}{OTHER_TARGET}{target}", "target": targets[target]})
