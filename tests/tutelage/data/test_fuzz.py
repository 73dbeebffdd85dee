"""Generated specs and files: what is read is what was written, or a sentence says why not.

`FUZZ=10000 python -m pytest tests/tutelage/data/test_fuzz.py` tries that many of each kind.
"""

import datetime as dt
import os
import tempfile
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tutelage.data.builders import METER, edited, write_spec
from tutelage.data.dataset import DatasetSpec, Timestamp, load_dataset_spec
from tutelage.data.quality import clean
from tutelage.data.readings import read_readings
from tutelage.data.resample import student_table
from tutelage.errors import TutelageError

EXAMPLES = int(os.environ.get("FUZZ", "150"))
ROUGH = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Etc/GMT+8",
)
FORMATS = ("%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "%Y%m%d%H%M", "%Y-%m-%dT%H:%M:%S")
BEGINNINGS = (dt.datetime(2024, 3, 30), dt.datetime(2024, 10, 26), dt.datetime(2024, 4, 6), dt.datetime(2024, 7, 1))
BAD_CELLS = ("", "n/a", "-", "1.2.3", "1,2,3", "∞", "NaN", "inf", "0x1F", "1e999", "２", "12 kW", '"', "#N/A")


@dataclass(frozen=True)
class Written:
    """A file as its writer knows it: the spec that describes it, and the value of each UTC time."""

    content: dict[str, Any]
    text: bytes
    values: dict[dt.datetime, float]


def _number(value: float, decimal: str, thousands: str) -> str:
    text = f"{value:,.3f}".replace(",", "_").replace(".", decimal)
    return text.replace("_", thousands)


@st.composite
def written_files(draw: st.DrawFn) -> Written:
    """A CSV file of a day or three in any zone, format and order, and its spec."""
    zone, form = draw(st.sampled_from(ZONES)), draw(st.sampled_from(FORMATS))
    step = dt.timedelta(minutes=draw(st.sampled_from((15, 30, 60))))
    has_offset, marks = draw(st.booleans()), draw(st.sampled_from(("start", "end")))
    decimal = draw(st.sampled_from((".", ",")))
    thousands = draw(st.sampled_from(("", *sorted({".", ",", "'", " "} - {decimal}))))
    separator = draw(st.sampled_from((";", "\t", "|") if "," in (decimal, thousands) else (",", ";", "\t", "|")))
    encoding = draw(st.sampled_from(("utf-8", "latin-1", "cp1252")))
    clock = Timestamp(columns=("Zeit",), timezone=zone, hours=draw(st.sampled_from(("clock", "utc"))))
    begin = dt.timedelta(minutes=clock.begin_minute)
    first = draw(st.sampled_from(BEGINNINGS)).replace(tzinfo=dt.UTC) + begin
    rows = draw(st.integers(2, 96))
    values = {first + place * step: draw(st.integers(-99_999_999, 99_999_999)) / 1000 for place in range(rows)}
    lines = []
    for time, value in values.items():
        local = (time + (step if marks == "end" else dt.timedelta(0))).astimezone(zoneinfo.ZoneInfo(zone))
        stamp = f"{local:{form}}" + (f"{local:%z}" if has_offset else "")
        lines.append(separator.join([stamp, _number(value, decimal, thousands)]))
    if draw(st.booleans()):
        lines.reverse()
    before = draw(st.integers(0, 3))
    header = [f"Zähler {n}" for n in range(before)] + [separator.join(["Zeit", "Leistung für kW"])]
    end = draw(st.sampled_from(("\n", "\r\n")))
    column = METER["columns"][0] | {"source": "Leistung für kW", "minimum": -1e6, "maximum": 1e6}
    content = edited({"columns": [column], "quality": {}, "raw_step": f"PT{step.seconds // 60}M"}) | {
        "source": {
            "path": "meter.csv",
            "separator": separator,
            "decimal": decimal,
            "thousands": thousands,
            "encoding": encoding,
            "skip_lines": before,
        },
        "timestamp": {
            "columns": ["Zeit"],
            "format": form + ("%z" if has_offset else ""),
            "timezone": zone,
            "marks": marks,
            "hours": clock.hours,
        },
    }
    return Written(content, (end.join([*header, *lines]) + end).encode(encoding), values)


def read_back(written: Written, text: bytes | None = None) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "meter.csv"
        path.write_bytes(written.text if text is None else text)
        spec = DatasetSpec.model_validate(written.content)
        return read_readings([path], spec)


@ROUGH
@given(written_files())
def test_a_file_is_read_as_it_was_written(written: Written) -> None:
    table = read_back(written)
    assert dict(table.select("time_utc", "power_kw").rows()) == pytest.approx(written.values, abs=1e-9)


Result = TypeVar("Result")


def sentence_or(make: Callable[[], Result]) -> Result | str:
    """What was made, or the sentence of why not; any other error is a fault."""
    try:
        return make()
    except TutelageError as error:
        return str(error)


def check_true(made: pl.DataFrame | str, true: dict[dt.datetime, float]) -> None:
    """A sentence, or only values that were written for their time."""
    if isinstance(made, str):
        assert made.strip()
        assert "Traceback" not in made
        return
    for time, value in made.drop_nulls().select("time_utc", "power_kw").rows():
        assert value == pytest.approx(true[time], abs=1e-9), time


@ROUGH
@given(written_files(), st.data())
def test_a_damaged_file_gives_no_value_that_was_not_written(written: Written, data: st.DataObject) -> None:
    encoding, separator = (written.content["source"][key] for key in ("encoding", "separator"))
    zoned = written.content["timestamp"]["format"].endswith("%z")
    lines = written.text.decode(encoding).splitlines()
    head = written.content["source"]["skip_lines"] + 1
    kinds = ["cell", "double", "cut", "extra", "blank"] + (["lost"] if zoned else [])
    for _ in range(data.draw(st.integers(1, 4))):
        place, kind = data.draw(st.integers(head, len(lines) - 1)), data.draw(st.sampled_from(kinds))
        if kind == "cell":
            bad = data.draw(st.sampled_from(BAD_CELLS)).encode(encoding, "replace").decode(encoding)
            lines[place] = lines[place].split(separator)[0] + separator + bad
        elif kind == "double" and zoned:
            lines.insert(place, lines[place])
        elif kind == "cut":
            lines[place] = lines[place].split(separator)[0]
        elif kind == "extra" and separator in lines[place]:
            lines[place] += separator + "9"
        elif kind == "blank":
            lines.insert(place, "")
        elif kind == "lost" and len(lines) > head + 2:
            del lines[place]
    text = "\n".join(lines).encode(encoding)
    check_true(sentence_or(lambda: read_back(written, text)), written.values)


@ROUGH
@given(written_files(), st.binary(max_size=400))
def test_any_bytes_are_refused_or_read_without_a_traceback(written: Written, noise: bytes) -> None:
    def hours() -> pl.DataFrame:
        spec = DatasetSpec.model_validate(written.content)
        return student_table(clean(read_back(written, noise), spec), spec).clear()

    check_true(sentence_or(hours), {})


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["PT1H", "P1D", "UTC"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@ROUGH
@given(st.sampled_from(sorted(METER)), JUNK, st.sampled_from(["", "role", "minimum", "until", "source", "unit"]))
def test_any_spec_is_refused_with_a_sentence_or_loads(key: str, junk: Any, inner: str) -> None:
    content = edited({key: junk} if not inner else {f"columns.0.{inner}": junk})
    with tempfile.TemporaryDirectory() as name:
        path = write_spec(Path(name), content)
        made = sentence_or(lambda: load_dataset_spec(path))
    assert isinstance(made, DatasetSpec) or made.startswith("dataset spec ")
