"""Write a first spec of a file that the project has not seen: `make new FILE=meters.csv`.

What the file says is filled in, with what was seen as a comment; what only a person knows is a `"?"`, and nothing
trains before each is filled. What was seen is printed, and stands at the top of the spec.
"""

import datetime as dt
import math
import re
import sys

import yaml

from flows.terminal import sentences
from runtime.paths import datasets_folder
from tutelage.contract import OPEN
from tutelage.data.clues import clock_clue, report_lines, step_of
from tutelage.data.dataset import DATASET_NAME, Role
from tutelage.data.grid import DAY, HOUR, MINUTE
from tutelage.data.sketch import SeenColumn, Sketch, are_series, files_of, sketch_file
from tutelage.errors import SpecError
from tutelage.files import written_whole

DEFAULTS = {"format": "csv", "separator": ",", "encoding": "utf-8", "skip_lines": 0, "decimal": ".", "thousands": ""}


def _quoted(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("\n...\n").strip()


def _duration(step: dt.timedelta) -> str:
    minutes, seconds = divmod(int(step.total_seconds()), 60)
    if not minutes:
        return f"PT{seconds}S"
    return "P1D" if step == DAY else f"PT{minutes}M" if minutes % 60 else f"PT{minutes // 60}H"


def _step_lines(step: dt.timedelta | None) -> list[str]:
    """The raw step, and the student's: an hour, or what is longer."""
    if step is None:
        return [f"raw_step: {_quoted(OPEN)}", "student_step: PT1H"]
    finer = f"  # or {_duration(step)}, to forecast it" if 5 * MINUTE <= step < HOUR else ""
    return [f"raw_step: {_duration(step)}", f"student_step: {_duration(max(step, HOUR))}{finer}"]


def _range(column: SeenColumn) -> tuple[float, float]:
    """The seen values with a margin, on two digits; from 0 where none is below."""

    def outward(value: float, direction: int) -> float:
        if value == 0:
            return 0.0
        unit = 10 ** (math.floor(math.log10(abs(value))) - 1)
        return float(f"{(math.ceil(value / unit) if direction > 0 else math.floor(value / unit)) * unit:.12g}")

    margin = 0.5 * ((column.highest - column.lowest) or abs(column.highest) or 1.0)
    low = 0.0 if column.lowest >= 0 else outward(column.lowest - margin, -1)
    return low, outward(column.highest + margin, 1)


def _column_lines(column: SeenColumn, role: Role) -> list[str]:
    low, high = _range(column)
    unknown = OPEN if role == Role.OBSERVED else "unknown"
    unit = _quoted(unknown if column.unit is None else column.unit)
    lines = [
        f"  - name: {_quoted(column.name)}",
        f"    source: {_quoted(column.source)}",
        f"    role: {role}",
        f"    unit: {unit}" + ("  # the file doesn't say" if column.unit is None else ""),
    ]
    if column.is_register:
        lines += ["    reading: register  # its values climb: the differences are the readings", "    aggregation: sum"]
        return [*lines, "    minimum: 0", f"    maximum: {_quoted(OPEN)}  # of the difference from reading to reading"]
    if column.is_sum:
        lines.append("    aggregation: sum  # an amount in each reading; mean where it is a rate")
    seen = f"{column.lowest:g} to {column.highest:g}"
    return [
        *lines,
        f"    minimum: {low:g}",
        f"    maximum: {high:g}  # seen: {seen}; better: what the instrument can say",
    ]


def spec_text(sketch: Sketch, name: str, report: list[str], pattern: str, *, by_file: bool) -> str:
    """A spec as commented YAML. pattern: of its files; by_file: whether each is a series."""
    plain = sketch.source.model_dump() | {"path": pattern}
    given = [key for key, default in DEFAULTS.items() if plain[key] != default]
    source = [f"  {key}: {_quoted(plain[key])}" for key in ("path", *given)]
    if len(plain["null_values"]) > 1:
        source.append(f"  null_values: {_quoted(list(plain['null_values']))}")
    step = step_of(sketch)
    first, *others = sketch.columns
    lines = [
        f"# Written by `make new`. Fill in each {_quoted(OPEN)}; docs/datasets.md explains the keys. Then:",
        f"#   make data DATASET={name} HORIZON=24",
        *(f"# {line}" for line in report),
        f"name: {name}",
        f"description: {_quoted(OPEN)}  # one line for the registered model",
        "source:",
        *source,
        "timestamp:",
        f"  columns: {_quoted(list(sketch.time.columns))}",
        *([f"  format: {_quoted(sketch.time.format)}"] if sketch.time.format else []),
        f"  # {clock_clue(sketch)}",
        "  timezone: &zone UTC  # of dates: each is a day, whatever the clock"
        if step == DAY
        else f"  timezone: &zone {_quoted(OPEN)}  # IANA name: Europe/Paris, UTC",
        "  marks: start  # end, where a time is the end of its reading",
        *([f"series_column: {_quoted(sketch.series)}"] if sketch.series else []),
        *(["series_from: file"] if by_file else []),
        f"target: {_quoted(first.name)}  # what to forecast",
        *_step_lines(step),
        "columns:",
        *_column_lines(first, Role.OBSERVED),
    ]
    if others:
        lines.append("  # privileged: there while training; observed: there at issue time; known_future: known ahead")
    for column in others:
        lines += _column_lines(column, Role.PRIVILEGED)
    serving = ["serving:", "  at_most_hours: 24  # a missing day is that of the day before"] if step == DAY else []
    return "\n".join(
        [*lines, "calendar:", "  timezone: *zone", "  # country: FR  # for its public holidays", *serving, ""]
    )


def main(arguments: list[str]) -> int:
    """Write the spec of the file that the arguments name: file=…, and optionally name=… and target=…."""
    with sentences():
        given = dict(argument.partition("=")[::2] for argument in arguments)
        if not given.get("file"):
            raise SpecError('file: name the file to look at: make new FILE=meters.csv WITH="target=load"')
        pattern, files = files_of(given["file"])
        stem = re.sub(r"[^a-z0-9]+", "-", (files[0].parent if len(files) > 1 else files[0]).name.split(".")[0].lower())
        name = given.get("name") or (stem.strip("-") if stem[:1].isalpha() else f"data-{stem.strip('-')}")
        if not re.fullmatch(DATASET_NAME, name):
            raise SpecError(f"name: {name!r} is not made of small letters, digits and hyphens, a letter first")
        path = datasets_folder() / f"{name}.yaml"
        if path.exists():
            raise SpecError(f'there is a spec {path.name} already; take another name: WITH="name=…"')
        sketch = sketch_file(files[0], target=given.get("target"))
        report = report_lines(sketch, step_of(sketch))
        second = sketch_file(files[1], target=given.get("target")) if len(files) > 1 else sketch
        by_file = second is not sketch and are_series(sketch, second)
        if len(files) > 1:
            kind = "each a series" if by_file else "parts of one series"
            report.insert(0, f"{len(files)} files, {kind}; {files[0].name}, the first of them:")
        if second.time != sketch.time:
            form = f"{', '.join(second.time.columns)} in the format {second.time.format}"
            report.append(f"{files[1].name} has its times in {form}: bring all files to one format")
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            part.write_text(spec_text(sketch, name, report, pattern, by_file=by_file), encoding="utf-8")
        print("", *report, clock_clue(sketch), f"Written: {path}", f"Fill in each {_quoted(OPEN)} there.", sep="\n")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
