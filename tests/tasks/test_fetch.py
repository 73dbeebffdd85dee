import os
from pathlib import Path

import polars as pl
import pytest

from runtime.paths import copies_folder
from tasks.fetch import fetch
from tests.tutelage.data.builders import meter
from tutelage.data.source import Source


def test_fetch__marks_a_copy_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERS_DATABASE", f"sqlite:///{tmp_path}/meters.db")
    pl.DataFrame({"power": [1.0, 2.0]}).write_database("minutes", os.environ["METERS_DATABASE"])
    source = Source(database="METERS_DATABASE", query="select * from minutes")
    spec = meter(name="of-a-database").model_copy(update={"source": source})
    [copy] = fetch.fn(spec)
    assert copy.is_relative_to(copies_folder("of-a-database"))
    os.utime(copy, (0, 0))
    assert fetch.fn(spec) == [copy]
    assert copy.stat().st_mtime > 1e9


def test_fetch__leaves_files_of_this_machine_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("time,power")
    os.utime(path, (0, 0))
    assert fetch.fn(meter(source__path=str(path))) == [path]
    assert path.stat().st_mtime == 0
