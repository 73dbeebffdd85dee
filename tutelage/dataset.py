"""The dataset as a contract: where readings come from, what each column means, who may see it.

A dataset spec is a YAML file; `load_dataset_spec` turns it into a `DatasetSpec` or refuses it with a sentence that
names the key. The rest of the system knows a dataset only by its spec.
"""

import datetime as dt
import importlib.metadata
import os
import zoneinfo
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tutelage.errors import DataError, SpecError
from tutelage.files import file_digest


def _known_zone(name: str) -> str:
    if name not in zoneinfo.available_timezones():
        raise ValueError(f"{name!r} is no IANA time zone")
    return name


TimeZone = Annotated[str, AfterValidator(_known_zone)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Contract(BaseModel):
    """A model that refuses unknown keys and can't be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Role(StrEnum):
    """Who sees a column: all (`observed`), the teacher (`privileged`), all and ahead of time (`known_future`)."""

    OBSERVED = "observed"
    PRIVILEGED = "privileged"
    KNOWN_FUTURE = "known_future"


class Source(Contract):
    """A file or glob (`path`), or a file within an installed package (`package` and `file`)."""

    path: str | None = Field(
        None, description="file or glob, relative to the working folder or absolute; may start with $VARIABLE/"
    )
    package: str | None = Field(None, description="installed distribution that ships the file")
    file: str | None = Field(None, description="the file's path inside that distribution")
    format: Literal["csv", "parquet"] = "csv"
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    null_values: tuple[str, ...] = Field(("",), description="texts that mean: no value")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="SHA-256 of the one file that the spec was written for; another one is refused"
    )

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if (self.path is None) == (self.package is None):
            raise ValueError("give either path, or package and file")
        if (self.package is None) != (self.file is None):
            raise ValueError("package and file go together")
        return self


class Timestamp(Contract):
    """The column, or the columns joined by a blank, that hold the time; how it is written; whose clock it is."""

    columns: tuple[str, ...] = Field(min_length=1)
    format: str = "%Y-%m-%d %H:%M:%S"
    timezone: TimeZone = Field(description="IANA name of the clock that wrote the times")


class Column(Contract):
    """One measured column: its name here and in the source, who sees it, how it is aggregated, what it may hold."""

    name: Name = Field(description="our name, ending in its unit: global_active_power_kw")
    source: str = Field(description="the column's name in the source")
    role: Role
    unit: str
    aggregation: Literal["mean", "sum"] = "mean"
    minimum: float
    maximum: float

    @model_validator(mode="after")
    def _range(self) -> "Column":
        if not self.minimum < self.maximum:
            raise ValueError(f"minimum {self.minimum} is not below maximum {self.maximum}")
        return self


class Tolerance(Contract):
    """The share of rows that may break a rule before the flow stops."""

    tolerance: Share


class Repeated(Tolerance):
    """Rows that equal, in every measured column, the row `after` earlier: a logger's unmarked filling."""

    after: dt.timedelta


class Frozen(Tolerance):
    """Runs of rows that equal their predecessor in every measured column, at least `at_least` long."""

    at_least: dt.timedelta


class QualityRules(Contract):
    """What is looked for in the readings, and how much of it is tolerated, as a share of the rows."""

    unreadable_time: Tolerance = Tolerance(tolerance=0)
    off_grid_time: Tolerance = Tolerance(tolerance=0)
    duplicate_time: Tolerance = Tolerance(tolerance=0)
    missing_row: Tolerance = Tolerance(tolerance=0.05)
    missing_value: Tolerance = Tolerance(tolerance=0.05)
    out_of_range: Tolerance = Tolerance(tolerance=0)
    repeated: Repeated | None = None
    frozen: Frozen | None = None
    complete_share: Share = Field(0.9, description="an hour with a smaller share of its readings is null")


class Serving(Contract):
    """What a forecast does where hours of its lookback are late or missing."""

    missing_hours: Literal["season", "last", "refuse"] = Field(
        "season", description="season: the same hour a day before (up to a week back); last: the hour before it"
    )
    at_most_hours: Annotated[int, Field(ge=0)] = Field(6, description="with more to fill, the series is refused")


class Monitoring(Contract):
    """When stored forecasts count as degraded, judged over the last `window_days` of what came true."""

    window_days: Annotated[int, Field(ge=1)] = 7
    least_hours: Annotated[int, Field(ge=1)] = Field(48, description="with fewer judged hours nothing is degraded")
    least_skill: float = Field(0.0, lt=1, description="CRPS skill over seasonal naive must not be below this")
    coverage_80: tuple[Share, Share] = Field((0.6, 0.95), description="where the 80 % interval's coverage must lie")
    reference_days: Annotated[int, Field(ge=7)] = Field(60, description="last days of training that inputs are held to")
    most_drift: Share = Field(0.5, description="Kolmogorov-Smirnov distance of an input that must not be exceeded")


class Replay(Contract):
    """Historical data played again, as if they came in now: the service's runs read no further than the replayed time.

    start, end: times in the data; the clock starts at the first, when the service first does, and stops at the other
    """

    start: AwareDatetime
    end: AwareDatetime
    hours_per_minute: Annotated[float, Field(gt=0, le=10_000)] = Field(
        24.0, description="hours of the data that pass in one minute of ours"
    )

    @model_validator(mode="after")
    def _forward(self) -> "Replay":
        if not self.start < self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        return self


class Calendar(Contract):
    """What is known of any hour ahead of time: hour, weekday and public holidays on this clock, in this country."""

    timezone: TimeZone
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = Field(
        None, description="ISO 3166 code for public holidays; none: no holidays"
    )


class DatasetSpec(Contract):
    """The contract of one dataset. See docs/datasets.md for the keys, deployments/datasets/ for the specs in use."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    description: str
    source: Source
    timestamp: Timestamp
    series_column: str | None = Field(None, description="column with the series id; none: one series")
    target: Name
    raw_step: dt.timedelta
    student_step: dt.timedelta
    columns: tuple[Column, ...] = Field(min_length=1)
    calendar: Calendar
    quality: QualityRules = QualityRules()
    serving: Serving = Serving()
    monitoring: Monitoring = Monitoring()
    replay: Replay | None = Field(None, description="none: the data's time is ours")

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetSpec":
        for what, values in {
            "name": [column.name for column in self.columns],
            "source": [column.source for column in self.columns],
        }.items():
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"columns: {what} {twice[0]!r} stands twice, so its roles overlap")
        reserved = {"series_id", "time_utc", "complete_share", "readings"} & {c.name for c in self.columns}
        if reserved:
            raise ValueError(f"columns: name {sorted(reserved)[0]!r} is taken by tutelage itself")
        by_name = {column.name: column for column in self.columns}
        if self.target not in by_name:
            raise ValueError(f"target: {self.target!r} is none of the columns")
        if by_name[self.target].role is not Role.OBSERVED:
            raise ValueError(
                f"target: {self.target!r} has the role {by_name[self.target].role.value!r}; "
                "a target must be observed, or the student could not see its own past"
            )
        if self.raw_step <= dt.timedelta(0):
            raise ValueError(f"raw_step: {self.raw_step} is not above zero")
        if self.student_step < self.raw_step:
            raise ValueError(f"student_step: {self.student_step} is finer than raw_step {self.raw_step}")
        if self.student_step != dt.timedelta(hours=1):
            raise ValueError(f"student_step: {self.student_step} is not one hour, the step that is supported")
        if self.student_step % self.raw_step:
            raise ValueError(f"student_step: {self.student_step} is no multiple of raw_step {self.raw_step}")
        return self

    @property
    def readings_per_hour(self) -> int:
        """Raw readings that make one full hour."""
        return self.student_step // self.raw_step

    @property
    def target_column(self) -> Column:
        """The column that is forecast."""
        return next(column for column in self.columns if column.name == self.target)

    def names(self, *roles: Role) -> list[str]:
        """Our names of the columns in these roles (of all without any), the target first, then in the spec's order."""
        chosen = [c.name for c in self.columns if not roles or c.role in roles]
        return sorted(chosen, key=lambda name: name != self.target)


def _sentence(error: ValidationError, name: str) -> str:
    """Every fault of a contract as `key: rule`, in one sentence that begins with its name."""
    faults = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        said = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            said = "unknown key"
        faults.append(f"{key}: {said}" if key else said)
    return f"{name}: " + "; ".join(faults)


AnyContract = TypeVar("AnyContract", bound=Contract)


def load_contract(path: Path, kind: type[AnyContract], *, called: str, many: str) -> AnyContract:
    """Read a contract from YAML; `called` and `many` are what sentences call one of its kind, and all of them.

    Raises SpecError with a sentence that names the file and the key.
    """
    name = f"{called} {path.name}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise SpecError(f"there is no {name}; known {many}: {known}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{name} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{name}: expected keys and values, found {type(content).__name__}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise SpecError(_sentence(error, name)) from error


def load_dataset_spec(path: Path) -> DatasetSpec:
    """Read a dataset spec from YAML.

    Raises SpecError with a sentence that names the file and the key.
    """
    spec = load_contract(path, DatasetSpec, called="dataset spec", many="datasets")
    if spec.name != path.stem:
        raise SpecError(f"dataset spec {path.name}: name: {spec.name!r} is not the file's name, {path.stem!r}")
    return spec


def _found_files(source: Source) -> list[Path]:
    if source.package is not None:
        try:
            files = importlib.metadata.files(source.package) or []
        except importlib.metadata.PackageNotFoundError:
            raise DataError(f"source: package {source.package} is not installed") from None
        found = [Path(str(f.locate())) for f in files if str(f) == source.file]
        if not found or not found[0].is_file():
            raise DataError(f"source: package {source.package} ships no file {source.file}")
        return found
    named = str(source.path)
    if named.startswith("$"):
        variable, _, rest = named[1:].partition("/")
        if not os.environ.get(variable):
            raise DataError(f"source: the environment variable {variable} must name the folder with {rest}")
        named = f"{os.environ[variable]}/{rest}"
    path = Path(named).expanduser()
    root, pattern = (Path(path.anchor), str(path.relative_to(path.anchor))) if path.anchor else (Path(), str(path))
    found = sorted(p for p in root.glob(pattern) if p.is_file())
    if not found:
        raise DataError(f"source: no file matches {named}")
    return found


def source_files(source: Source) -> list[Path]:
    """The files that a source names, sorted.

    Raises DataError where the package, the environment variable or the file is not there, or the file is another one
    than the source's SHA-256 says.
    """
    found = _found_files(source)
    if source.sha256 is not None and [file_digest(path) for path in found] != [source.sha256]:
        names = ", ".join(path.name for path in found)
        raise DataError(f"source: {names} is not the file that the spec was written for, its SHA-256 is another one")
    return found
