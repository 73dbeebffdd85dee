"""A home that was moved or copied: MLflow's database has the full paths of its files."""

import logging
import os
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""MLflow's tables and columns of paths."""


@cache
def follow_home(root: Path) -> None:
    """Let MLflow's database in a home name the files that are in it now, where they were in another folder before.

    Else new files would go to the old place, which may be another home's. Once in a process, and where MLflow's
    database is the home's own; the files of an experiment that are not in the home stay where they are.
    """
    database, artifacts = root / "mlflow.db", root / "mlflow-artifacts"
    if os.environ["MLFLOW_TRACKING_URI"] != f"sqlite:///{database}" or not database.is_file():
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:  # MLflow creates its tables on first use
            return
        for location, name in connection.execute("SELECT artifact_location, name FROM experiments").fetchall():
            there, was_here = (artifacts / name).as_uri(), location.endswith(f"/{artifacts.name}/{name}")
            if was_here and location != there and (artifacts / name).is_dir():
                logging.getLogger(__name__).warning("the home was moved: %s are now in %s", location, there)
                for table, column in LOCATIONS:
                    if table in tables:
                        _replace_beginning(connection, table, column, location, there)


def _replace_beginning(connection: sqlite3.Connection, table: str, column: str, before: str, after: str) -> None:
    rest = len(before) + 1
    connection.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column} || '/', 1, ?) = ?",
        (after, rest, rest, f"{before}/"),
    )
