"""A first look at a file that nobody here has seen: how it is written, its time, its series, its columns.

What the file doesn't say, such as the zone of its clock or a unit, stays open: `OPEN` marks it in a spec.
"""

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tutelage.data.readings import number_of
from tutelage.data.scan import check_size, read_text
from tutelage.data.source import Source
from tutelage.errors import DataError

HEAD_BYTES = 256 * 1024
HEAD_LINES = 200
SEPARATORS = (";", "\t", "|", ",")
DATES = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y%m%d")
CLOCKS = ("%H:%M:%S", "%H:%M", "%H:%M:%S%.f", "%H:%M:%S%z", "%H:%M%z", "%H:%M:%S%.f%z", "%H%M")
DATE_TEXT, CLOCK_TEXT = r"^\s*(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{8})", r"^\s*(\d{1,2}:\d{2}|\d{3,4}\s*$)"
SAMPLE_ROWS, MARK_ROWS = 500, 5000
ALMOST_ALL = 0.98
MOST_NULL_TEXTS = 5
SERIES_NAME = re.compile(r"meter|series|site|station|home|house|building|device|sensor|unit_id|(^|_)id$", re.IGNORECASE)
TARGET_NAME = re.compile(
    r"power|load|demand|consum|active|leistung|verbrauch|last\b|conso|puissance|energy|kwh?\b|mwh?\b", re.IGNORECASE
)
ENERGIES = ("kWh", "Wh", "MWh", "GWh")
UNITS = {name.lower(): name for name in (*ENERGIES, "kW", "W", "MW", "V", "A", "kvar", "Hz", "m3", "hPa")}
UNITS |= {"c": "°C", "degc": "°C", "°c": "°C", "%": "%", "pct": "%", "percent": "%", "m/s": "m/s", "w/m2": "W/m²"}
REGISTER_SHARE = 0.995
LEAST_REGISTER_ROWS = 50


@dataclass(frozen=True)
class TimeColumns:
    """The columns that hold the time, joined by a blank, and their format; empty for a column of datetimes."""

    columns: tuple[str, ...]
    format: str


@dataclass(frozen=True)
class SeenColumn:
    """A column of numbers: its name in the file and here, its unit (None: not known), and the values that it takes."""

    source: str
    name: str
    unit: str | None
    is_register: bool
    lowest: float
    highest: float

    @property
    def is_sum(self) -> bool:
        """Whether an hour's value is the sum of its readings: an amount of energy is."""
        return self.is_register or self.unit in ENERGIES


@dataclass(frozen=True)
class Sketch:
    """What a file shows.

    table: `local` (the time as it is written, or UTC), `series_id`, and the columns of numbers as float64
    series: the column of the series' id; None: there is one series
    """

    source: Source
    time: TimeColumns
    series: str | None
    columns: tuple[SeenColumn, ...]
    target: str
    table: pl.DataFrame


def files_of(named: str) -> tuple[str, list[Path]]:
    """A file, a folder or a glob as the pattern of a spec's `source.path`, and its files, sorted.

    Raises DataError where there is none.
    """
    path = Path(named).expanduser().absolute()
    if path.is_dir():
        kinds = Counter(file.suffix for file in path.iterdir() if file.suffix in (".csv", ".gz", ".txt", ".parquet"))
        path = path / f"*{kinds.most_common(1)[0][0]}" if kinds else path / "*.csv"
    files = sorted(file for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if file.is_file())
    if not files:
        raise DataError(f"no file matches {path}")
    return str(path), files


def are_series(first: Sketch, second: Sketch) -> bool:
    """Whether two files hold the same times, so that each is a series; else they are parts of one."""
    here, there = (each.table["local"].drop_nulls() for each in (first, second))
    if here.dtype != there.dtype:  # only one of them has offsets
        return False
    return bool(here.is_between(there.min(), there.max()).sum() > len(here) / 2)


def sketch_file(path: Path, *, target: str | None = None) -> Sketch:
    """Look at a CSV (gz, too) or parquet file.

    target: the name of its column to forecast; None: the one whose name looks most like it

    Raises DataError with a sentence where it holds no times, or no numbers.
    """
    source, table = _read(path)
    time, local = _find_time(table, path)
    others = [name for name in table.columns if name not in time.columns]
    numbers, source = _numbers(table.select(others), source)
    series = _find_series(table, [name for name in others if name not in numbers], numbers, local)
    values = numbers.drop(series, strict=False) if series else numbers
    if not values.columns:
        raise DataError(f"{path.name}: no column holds numbers; it has {', '.join(map(repr, table.columns))}")
    chosen = target or next((name for name in values.columns if TARGET_NAME.search(name)), values.columns[0])
    if chosen not in values.columns:
        known = ", ".join(map(repr, values.columns))
        raise DataError(f"{path.name}: {chosen!r} is no column of numbers; these are: {known}")
    ids = table[series].cast(pl.String) if series else pl.repeat("", table.height, eager=True)
    whole = values.with_columns(local.alias("local"), ids.alias("series_id"))
    columns = _describe(whole, [chosen, *(name for name in values.columns if name != chosen)])
    return Sketch(source, time, series, columns, chosen, whole)


def _read(path: Path) -> tuple[Source, pl.DataFrame]:
    """How a file is written, and its rows, those of a CSV as text."""
    if path.suffix == ".parquet":
        return Source(path=str(path), format="parquet"), pl.read_parquet(path)
    check_size(path)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    encoding = "utf-8"
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # A character that the end of the sample cuts is no fault.
        encoding = "utf-8" if error.start > len(head) - 4 else "cp1252"
    lines = head.decode(encoding, errors="ignore").splitlines()[:HEAD_LINES]
    counts = {mark: Counter(line.count(mark) for line in lines if line.strip()) for mark in SEPARATORS}
    best, (fields, _) = max(
        ((mark, of_mark.most_common(1)[0]) for mark, of_mark in counts.items() if of_mark),
        key=lambda item: (item[1][0] > 0) * item[1][1],
        default=(",", (0, 0)),
    )
    if not fields:
        raise DataError(f"{path.name} is no table: no separator of {', '.join(map(repr, SEPARATORS))} is in its lines")
    first = next(number for number, line in enumerate(lines) if line.count(best) == fields)
    source = Source(path=str(path), separator=best, encoding=encoding, skip_lines=first)
    try:
        table = read_text(path, encoding, separator=best, skip_lines=first, infer_schema=False)
    except pl.exceptions.ComputeError as error:
        raise DataError(f"{path.name} can't be read as a table with {best!r} between its columns: {error}") from error
    if any(re.fullmatch(r"[+-]?\d+([.,]\d+)?", name.strip()) for name in table.columns):
        raise DataError(f"{path.name}: its first line holds numbers; a header with the columns' names is needed")
    return source, table


def _parsed(text: pl.Series, form: str) -> pl.Series:
    """Times in a format; with an offset as UTC; null where the text has another form."""
    if form.endswith("%z"):
        text = text.str.replace(r"[Zz]$", "+00:00")
        return text.str.to_datetime(form, time_unit="us", strict=False, time_zone="UTC")
    return text.str.to_datetime(form, time_unit="us", strict=False)


def _find_time(table: pl.DataFrame, path: Path) -> tuple[TimeColumns, pl.Series]:
    """The columns of the time with their format, and the times: of all that fit, those that step most evenly."""
    datetimes = [name for name, dtype in table.schema.items() if isinstance(dtype, pl.Datetime)]
    if datetimes:
        return TimeColumns((datetimes[0],), ""), table[datetimes[0]].dt.cast_time_unit("us")
    texts = [name for name, dtype in table.schema.items() if dtype == pl.String]
    fits: list[tuple[float, TimeColumns, pl.Series]] = []
    forms = [f"{date} {clock}" for date in DATES for clock in CLOCKS]
    dates, clocks = (_that_look(table, texts, pattern) for pattern in (DATE_TEXT, CLOCK_TEXT))
    single = [((name,), form.replace(" ", mark)) for name in dates for form in forms for mark in " T"]
    compact = [((name,), f"%Y%m%d{mark}%H%M") for name in dates for mark in ("", "T")]
    pairs = [((date, clock), form) for date in dates for clock in clocks if date != clock for form in forms]
    days = [((name,), date) for name in dates for date in DATES[:-1]]
    for candidates in (compact + single, pairs, days):
        for columns, form in candidates:
            text = _joined(table.head(SAMPLE_ROWS), columns)
            if not _is_almost_all(_parsed(text, form), text):
                continue
            whole = _joined(table, columns)
            times = _parsed(whole, form)
            if _is_almost_all(times, whole):
                fits.append((_evenness(times), TimeColumns(columns, form), times))
        if fits:
            _, time, times = max(fits, key=lambda fit: fit[0])
            return time, times
    shown = "; ".join(f"{name!r}: {table[name].drop_nulls().head(1).to_list()}" for name in texts[:5])
    raise DataError(f"{path.name}: no column holds times in a form that is known here. Its texts begin: {shown}")


def _that_look(table: pl.DataFrame, names: Iterable[str], pattern: str) -> list[str]:
    """The columns of texts that begin like this."""
    first = table.head(SAMPLE_ROWS)
    return [name for name in names if first[name].drop_nulls().str.contains(pattern).sum() > first.height / 2]


def _joined(table: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    text = table.select(pl.concat_str([pl.col(name).str.strip_chars() for name in columns], separator=" ")).to_series()
    return text.str.replace(r"(^|[ T])24:00", "${1}00:00")


def _is_almost_all(times: pl.Series, text: pl.Series) -> bool:
    there = len(text) - text.null_count()
    return there > 0 and (len(times) - times.null_count()) >= ALMOST_ALL * there


def _evenness(times: pl.Series) -> float:
    """The share of the most frequent step."""
    steps = times.drop_nulls().diff().drop_nulls()
    return 0.0 if steps.is_empty() else float(steps.value_counts()["count"].max()) / len(steps)  # type: ignore[arg-type]


def _numbers(table: pl.DataFrame, source: Source) -> tuple[pl.DataFrame, Source]:
    """The columns of numbers as float64, and the source with its marks and its texts for no value."""
    numeric = table.select(pl.selectors.numeric().cast(pl.Float64))
    texts = table.select(pl.selectors.string().str.strip_chars())
    if not texts.columns:
        return numeric, source
    marks = [(".", ""), (",", ""), (",", "."), (",", " "), (".", ","), (".", " "), (".", "'"), (",", "'")]
    options = [source.model_copy(update={"decimal": d, "thousands": t}) for d, t in marks if t != source.separator]
    # The first of the best: "1.234" is a number with a decimal point where nothing else speaks against it.
    sample = texts.gather_every(max(1, texts.height // MARK_ROWS))
    best = max(options, key=lambda option: _count_numbers(sample, option))
    values = texts.select(_as_number(name, best) for name in texts.columns)
    nulls, chosen = set(), []
    for name in texts.columns:
        bad = texts[name].filter(values[name].is_null() & texts[name].is_not_null() & (texts[name] != ""))
        there = len(texts[name]) - texts[name].null_count()
        if there and len(bad) <= there / 2 and bad.n_unique() <= MOST_NULL_TEXTS and values[name].is_not_null().any():
            chosen.append(name)
            nulls |= set(bad.to_list())
    order = [name for name in table.columns if name in chosen or name in numeric.columns]
    best = best.model_copy(update={"null_values": ("", *sorted(nulls))})
    return pl.concat([numeric, values.select(chosen)], how="horizontal").select(order), best


def _count_numbers(texts: pl.DataFrame, source: Source) -> int:
    values = texts.select(_as_number(name, source) for name in texts.columns)
    return sum(len(column) - column.null_count() for column in values)


def _as_number(name: str, source: Source) -> pl.Expr:
    return number_of(pl.col(name), source).cast(pl.Float64, strict=False).alias(name)


def _find_series(table: pl.DataFrame, texts: Iterable[str], numbers: pl.DataFrame, local: pl.Series) -> str | None:
    """The column that names a row's series, where times occur more often than once and it keeps them apart."""
    if local.drop_nulls().n_unique() > ALMOST_ALL * local.drop_nulls().len():
        return None
    named = [name for name in numbers.columns if SERIES_NAME.search(name)]
    for name in [*texts, *named]:
        ids = table[name]
        if not 2 <= ids.n_unique() <= max(2, table.height // 10):
            continue
        keys = pl.DataFrame({"series": ids, "local": local}).drop_nulls()
        if keys.n_unique() >= 0.9 * keys.height:
            return name
    return None


def _describe(table: pl.DataFrame, names: Sequence[str]) -> tuple[SeenColumn, ...]:
    columns: list[SeenColumn] = []
    for source in names:
        values = table[source].drop_nulls()
        values = values.filter(values.is_finite())
        unit = _unit(source)
        bare = re.sub(r"[\[(].*?[\])]", "", source)
        name = re.sub(r"[^a-z0-9]+", "_", bare.lower()).strip("_") or "column"
        suffix = re.sub(r"[^a-z0-9]+", "", (unit or "").lower().replace("°", "").replace("²", "2").replace("%", "pct"))
        name = name if not suffix or name.endswith(f"_{suffix}") else f"{name}_{suffix}"
        name = name if name[0].isalpha() else f"c_{name}"
        while name in [column.name for column in columns]:
            name += "_2"
        low, high = (float(edge) if edge is not None else 0.0 for edge in (values.min(), values.max()))  # type: ignore[arg-type]
        columns.append(SeenColumn(source, name, unit, _is_register(table, source), low, high))
    return tuple(columns)


def _unit(name: str) -> str | None:
    """The unit that a column's name ends in: `Power [kW]`, `load (MWh)`, `demand_kw`, `Leistung kW`."""
    inside = re.search(r"[\[(]\s*([^\])]+?)\s*[\])]", name)
    last = inside.group(1) if inside else re.split(r"[\s_.]+", name.strip())[-1]
    if not inside and last == name.strip():
        return None
    return UNITS.get(last.lower())


def _is_register(table: pl.DataFrame, name: str) -> bool:
    """Whether values climb, but for resets, as those of a meter's counter do."""
    ordered = table.select("series_id", "local", value=pl.col(name)).drop_nulls().sort("series_id", "local")
    step = ordered.select(pl.col("value").diff().over("series_id")).to_series().drop_nulls()
    if len(step) < LEAST_REGISTER_ROWS:
        return False
    climbs = float((step >= 0).mean()) >= REGISTER_SHARE and float((step > 0).mean()) > 0.1  # type: ignore[arg-type]
    spread = float(ordered["value"].max()) - float(ordered["value"].min())  # type: ignore[arg-type]
    return climbs and spread > 20 * float(step.abs().median() or 0.0)  # type: ignore[arg-type]
