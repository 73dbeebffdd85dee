"""The source of a dataset: its files, or copies of what lies in an object store, a database or a Delta table.

A copy's folder is named by the object's version, or by the digest of the rows: what did not change is not copied again.
"""

import codecs
import importlib.metadata
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from operator import itemgetter
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import polars as pl
import sqlalchemy
from pydantic import AfterValidator, Field, model_validator

from tutelage.contract import Contract
from tutelage.errors import DataError, UnreachableError
from tutelage.files import file_digest, value_digest, write_table, written_whole


def _known_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise ValueError(f"{name!r} is not an encoding that Python knows") from None


class Source(Contract):
    """Files (`path`), a file within an installed package (`package`, `file`), or a table (`database`, `query`)."""

    path: str | None = Field(
        None,
        description="file, folder or glob, relative to the working folder or absolute; may start with $VARIABLE/, or "
        "be the URL of an object store, s3://bucket/meters/*.csv",
    )
    package: str | None = Field(None, description="installed distribution that ships the file")
    file: str | None = Field(None, description="the file's path inside that distribution")
    database: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = Field(
        None, description="the environment variable that holds a database's URL, as SQLAlchemy reads it"
    )
    query: str | None = Field(None, description="what to read of the database: SQL that selects rows, in order of time")
    format: Literal["csv", "parquet", "delta"] = "csv"
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    null_values: tuple[str, ...] = Field(("",), description="texts that mean a missing value")
    encoding: Annotated[str, AfterValidator(_known_encoding)] = Field("utf-8", description="of a CSV")
    skip_lines: Annotated[int, Field(ge=0)] = Field(0, description="lines before a CSV's header")
    comment: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="how a CSV's lines begin that are not rows; empty: every line is a row"
    )
    decimal: Literal[".", ","] = Field(".", description="the decimal mark of a CSV's numbers")
    thousands: Literal["", ".", ",", " ", "'"] = Field(
        "", description="the mark between a CSV's thousands; empty: none"
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="SHA-256 of the one file that the spec was written for; any other file is rejected"
    )

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if [self.path, self.package, self.database].count(None) != 2:
            raise ValueError("give either path, or package and file, or database and query")
        if (self.package is None) != (self.file is None):
            raise ValueError("package and file go together")
        if (self.database is None) != (self.query is None):
            raise ValueError("database and query go together")
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are the same mark, {self.decimal!r}")
        return self

    @property
    def is_copied(self) -> bool:
        """Whether flows copy it first, from an object store, a database or a Delta table."""
        named = str(self.path)
        if named.startswith("$"):
            named = os.environ.get(named[1:].partition("/")[0], "")
        return self.database is not None or self.format == "delta" or "://" in named

    @property
    def is_text(self) -> bool:
        """Whether its files are text; those of tables are parquet."""
        return self.format == "csv" and self.database is None


SUFFIXES = {"csv": (".csv", ".csv.gz", ".txt"), "parquet": (".parquet",)}
"""Of the files that a folder's name stands for, by format."""
VERSION = "@"
"""How the name of a copy's folder begins."""


def source_files(source: Source, copies: Path | None = None) -> list[Path]:
    """The files that a source names, sorted by their path.

    copies: a folder for copies of what is no file of this machine; None: there must be no such thing

    Raises DataError where the package, the environment variable or the file does not exist, or the file's SHA-256
    differs from the source's; UnreachableError where a store or a database does not answer as it should.
    """
    files = _find_files(source, copies)
    if source.sha256 is not None and [file_digest(path) for path in files] != [source.sha256]:
        names = ", ".join(path.name for path in files)
        raise DataError(f"source: {names} is not the file that the spec was written for: its SHA-256 differs")
    return files


def relative_names(files: Sequence[Path]) -> dict[str, Path]:
    """Files by their path within the folder that they share, from the first one on that stands for a column's value."""
    plain = [PurePath(*(part for part in path.parts if not part.startswith(VERSION))) for path in files]
    folders = [PurePath(*takewhile(lambda part: "=" not in part, path.parent.parts)) for path in plain]
    shared = len(PurePath(os.path.commonpath(folders)).parts) if files else 0
    return {PurePath(*path.parts[shared:]).as_posix(): file for path, file in zip(plain, files, strict=True)}


def partitions(path: Path) -> dict[str, str]:
    """What the folders of a partitioned table say of a file: {"meter": "7"} of meter=7/part-0.parquet."""
    named = [part.partition("=") for part in path.parent.parts if "=" in part]
    return {name: unquote(value) for name, _, value in named}


def called(path: Path) -> str:
    """A file's name for the reader, with the folders of a partitioned table."""
    return "/".join([*(part for part in path.parent.parts if "=" in part), path.name])


def _find_files(source: Source, copies: Path | None) -> list[Path]:
    if source.package is not None:
        return [_shipped_file(source.package, str(source.file))]
    named = with_variable(str(source.path))
    if source.is_copied:
        if copies is None:
            raise DataError(f"source: {source.database or named} is read by a flow only, which copies it")
        if source.database is not None:
            return [_queried(source.database, str(source.query), copies)]
        if source.format == "delta":
            return [_delta_table(named, copies)]
        files = list(_copied(named, source.format, copies))
    else:
        path = Path(named).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and _is_of(p.name, source.format))
        else:
            root, pattern = (Path(path.anchor), str(path.relative_to(path.anchor))) if path.anchor else (Path(), named)
            files = sorted(p for p in root.glob(pattern) if p.is_file())
    if not files:
        raise DataError(f"source: no file matches {named}")
    return files


def _is_of(name: str, form: str) -> bool:
    return name.endswith(SUFFIXES[form])


def _shipped_file(package: str, file: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"source: package {package} is not installed") from None
    shipped = [Path(str(f.locate())) for f in files if str(f) == file]
    if not shipped or not shipped[0].is_file():
        raise DataError(f"source: package {package} ships no file {file}")
    return shipped[0]


def with_variable(named: str) -> str:
    """A path that begins with $VARIABLE/, with the environment variable's value."""
    if not named.startswith("$"):
        return named
    variable, _, rest = named[1:].partition("/")
    if not os.environ.get(variable):
        raise DataError(f"source: the environment variable {variable} must name the folder with {rest}")
    return f"{os.environ[variable]}/{rest}"


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, part by part; ** stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _copied(url: str, form: str, copies: Path) -> Iterator[Path]:
    """Copies of a store's objects: of one, of all that match a glob, or, where the URL ends in /, of all below it.

    Keys, regions and endpoints come from the environment variables of the store's own tools (AWS_ACCESS_KEY_ID, …).
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise DataError(f"source: reading {url} needs more packages: pip install 'tutelage[sources]'") from None
    scheme, rest = url.split("://", 1)
    *folders, last = rest.split("/")
    fixed = next((place for place, part in enumerate(folders) if re.search(r"[*?\[]", part)), len(folders))
    pattern = [*folders[fixed:], last]
    try:
        store = from_url(f"{scheme}://{'/'.join(folders[:fixed])}", retry_config={"max_retries": 2})
        if re.search(r"[*?\[]", "/".join(pattern)) or not last:
            objects = [each for page in store.list() for each in page]
        else:
            objects = [store.head(last)]
        for each in sorted(objects, key=itemgetter("path")):
            path = PurePosixPath(each["path"])
            if ".." in path.parts:
                raise DataError(f"source: {url} has an object {path}, whose name leads out of its folder")
            wanted = _matches(path.parts, pattern) if last else _is_of(path.name, form)
            if wanted:
                version = [url, each["path"], each["size"], each["e_tag"] or each["last_modified"]]
                yield _copy(store, path, copies / f"{VERSION}{value_digest(version)[:16]}")
    except FileNotFoundError:
        raise DataError(f"source: there is no {url}") from None
    except (BaseError, OSError, ValueError) as error:
        raise UnreachableError(f"source: {url} can't be read: {_first_line(error)}") from error


def _copy(store: Any, path: PurePosixPath, folder: Path) -> Path:
    copy = folder / path
    if not copy.exists():
        with written_whole(copy) as part, part.open("wb") as file:
            for piece in store.get(str(path)).stream():
                file.write(piece)
    return copy


def _queried(variable: str, query: str, copies: Path) -> Path:
    """The rows of a query as a parquet file; the database's URL is in an environment variable, since it has secrets."""
    url = os.environ.get(variable)
    if not url:
        raise DataError(f"source: the environment variable {variable} must hold the database's URL")
    try:
        engine = sqlalchemy.create_engine(url)
        try:
            with engine.connect() as connection:
                rows = pl.read_database(sqlalchemy.text(query), connection, infer_schema_length=None)
        finally:
            engine.dispose()
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError) as error:
        # A statement that the database refuses comes as one of these, too; trying it again does no harm.
        raise UnreachableError(f"source: the database of {variable} can't be read: {_first_line(error)}") from None
    except (sqlalchemy.exc.SQLAlchemyError, pl.exceptions.PolarsError, ImportError) as error:
        raise DataError(f"source: the query in the database of {variable} fails: {_first_line(error)}") from None
    except AttributeError:  # polars, where a statement's result has no columns
        raise DataError(f"source: the query in the database of {variable} is no select: it gives no rows") from None
    return _kept_table(rows, copies, "query")


def _delta_table(named: str, copies: Path) -> Path:
    """The newest version of a Delta table as a parquet file."""
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError
    except ImportError:
        raise DataError(f"source: reading {named} needs more packages: pip install 'tutelage[sources]'") from None
    try:
        rows = pl.from_arrow(DeltaTable(named).to_pyarrow_table())
    except TableNotFoundError:
        raise DataError(f"source: there is no Delta table {named}") from None
    except (DeltaError, OSError) as error:
        raise UnreachableError(f"source: the Delta table {named} can't be read: {_first_line(error)}") from error
    assert isinstance(rows, pl.DataFrame)
    return _kept_table(rows, copies, PurePosixPath(named).name)


def _kept_table(rows: pl.DataFrame, copies: Path, name: str) -> Path:
    """The rows as a file of this name, in a folder that their digest names."""
    table, digest = write_table(rows, copies)
    path = copies / f"{VERSION}{digest[:16]}" / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    return table.replace(path)


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]
