import time
from pathlib import Path

import pytest

from runtime.registry import client, registered_runs
from schemas.tidy import TidyParameters
from tasks.tidy.old import remove_old
from tests.runtime.builders import Published, put

DAY = 24 * 3600


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))


def megabyte(name: str, days: float) -> Path:
    """A file of a megabyte in the home, of so many days ago."""
    return put(name, time.time() - days * DAY, size=10**6)


@pytest.mark.parametrize("only_list", [False, True])
def test_remove_old__removes_or_lists_by_age(only_list: bool, published: Published) -> None:
    old = [
        megabyte("data/readings/a.parquet", 61),
        megabyte("trainings/teacher/b/weights", 61),
        megabyte("runs/c/f.json", 801),
    ]
    fresh = [
        megabyte("data/readings/d.parquet", 59),
        megabyte("runs/e/f.json", 799),
        megabyte("forecasts/m-1h/issue=1/f", 61),
    ]
    tidied = remove_old.fn(TidyParameters(only_list=only_list))
    assert tidied.removed_bytes == {"data/readings": 10**6, "trainings/teacher": 10**6, "runs": 10**6}
    assert [path.exists() for path in old] == [only_list] * 3
    assert all(path.exists() for path in fresh)
    [((table,), values)] = published.of("create_table_artifact")
    assert {"folder": "runs", "MB": 1.0} in table
    assert values["description"] == f"3.0 MB {'would be removed' if only_list else 'removed'}"


def test_remove_old__leaves_the_results_of_a_registered_version(tmp_path: Path) -> None:
    run_id = client().create_run("0").info.run_id
    client().create_registered_model("tidied-1h")
    client().create_model_version("tidied-1h", tmp_path.as_uri(), run_id)
    assert run_id in registered_runs()
    needed, other = megabyte(f"runs/{run_id}/f.json", 900), megabyte("runs/other/f.json", 900)
    remove_old.fn(TidyParameters())
    assert needed.exists()
    assert not other.exists()
