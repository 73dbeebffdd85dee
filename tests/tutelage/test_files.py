import json
from pathlib import Path

import polars as pl
import pytest

from tutelage.files import (
    file_digest,
    folder_written_whole,
    read_json,
    value_digest,
    write_json,
    write_table,
    written_whole,
)

TABLE = pl.DataFrame({"hour": [0, 1, 2], "power_kw": [1.5, None, 2.5]})


def listing(folder: Path) -> list[str]:
    """All that lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_written_whole__appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "figures.txt"
    with written_whole(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == path.parent  # the same file system: the rename is one step
    assert path.read_text() == "new"
    assert listing(path.parent) == ["figures.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("old", ["old", None])
@pytest.mark.fault
def test_written_whole__failure_leaves_the_old_file_or_none(old: str | None, tmp_path: Path) -> None:
    path = tmp_path / "figures.txt"
    if old:
        path.write_text(old)
    with pytest.raises(KeyboardInterrupt), written_whole(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == ({"figures.txt": old} if old else {})


def test_folder_written_whole__replaces_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "student"
    for name in ("first.json", "second.json"):
        with folder_written_whole(path) as part:
            (part / name).touch()
    assert listing(path) == ["second.json"]
    assert listing(tmp_path) == ["student"]


@pytest.mark.parametrize("old", ["old", None])
@pytest.mark.fault
def test_folder_written_whole__failure_leaves_the_old_folder_or_none(old: str | None, tmp_path: Path) -> None:
    path = tmp_path / "student"
    if old:
        path.mkdir()
        (path / old).touch()
    with pytest.raises(KeyboardInterrupt), folder_written_whole(path) as part:
        (part / "half").touch()
        raise KeyboardInterrupt
    assert listing(tmp_path) == (["student"] if old else [])
    assert not old or listing(path) == [old]


@pytest.mark.parametrize("value", [float("nan"), {"gain": float("inf")}])
def test_write_json__what_is_no_json_leaves_the_old_file(value: object, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_json(path, {"gain": 0.5, "at": path})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, value)
    assert read_json(path) == {"gain": 0.5, "at": str(path)}
    assert listing(tmp_path) == ["figures.json"]


def test_write_table__is_named_by_its_content(tmp_path: Path) -> None:
    path, digest = write_table(TABLE, tmp_path)
    assert (path, digest) == (tmp_path / f"{digest}.parquet", file_digest(path))
    assert pl.read_parquet(path).equals(TABLE)
    assert write_table(TABLE.clone(), tmp_path) == (path, digest)
    assert listing(tmp_path) == [path.name]
    other, _ = write_table(TABLE.with_columns(pl.col("power_kw").fill_null(0.0)), tmp_path)
    assert listing(tmp_path) == sorted([path.name, other.name])


@pytest.mark.fault
def test_write_table__failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        write_table(pl.DataFrame({"what": [object()]}), tmp_path)
    assert listing(tmp_path) == []


def test_value_digest__knows_values_and_not_the_order_of_keys() -> None:
    value = {"a": 1, "b": {"c": [1, 2], "d": None}}
    reordered = {"b": {"d": None, "c": [1, 2]}, "a": 1}
    assert json.dumps(value) != json.dumps(reordered)
    assert value_digest(value) == value_digest(reordered)
    others = [value | {"a": 2}, value | {"a": "1"}, {"a": 1, "b": {"c": [2, 1], "d": None}}]
    assert len({value_digest(v) for v in [value, *others]}) == 4
