"""A retrain, repeated from its record."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml

import flows.reproduce
from flows.retrain import retrain
from runtime.paths import copies_folder, datasets_folder
from runtime.record import read_record
from schemas.verdict import Verdict
from tests.flows.test_retrain import SMALL, small
from tests.household import write_slice
from tests.tutelage.data.builders import meter
from tutelage.data.source import relative_names, source_files
from tutelage.errors import DataError, RegistryError
from tutelage.files import file_digest

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def verdict(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdict]:
    """That of a retrain by a preset, which has changed since."""
    name = write_slice(datasets_folder(), name="again-slice", days=24)
    preset = tmp_path_factory.mktemp("recipes") / "again.yaml"
    preset.write_text(yaml.safe_dump(SMALL.model_dump(mode="json")), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_RECIPES", str(preset.parent))
        done = retrain(small(name, preset="again", history_days=12, test_days=7, refit=True))
        preset.write_text(yaml.safe_dump({"seed_of_nothing": 1}), encoding="utf-8")
        yield done


def run_of(verdict: Verdict) -> str:
    return str(mlflow.MlflowClient().get_model_version(verdict.task, verdict.registered.version).run_id)


def test_reproduce__is_the_same_to_the_last_bit(verdict: Verdict, capfd: pytest.CaptureFixture[str]) -> None:
    record = read_record(run_of(verdict))
    assert list(record.results) == ["readings", "features", "teachers", "students", "refit"]
    assert flows.reproduce.main([run_of(verdict)]) == 0
    shown = capfd.readouterr().out
    lines = [line.split() for line in shown.splitlines() if line.endswith(("same", "DIFFERS"))]
    assert [(line[0], line[-1]) for line in lines] == [(name, "same") for name in record.results]
    assert [line[1] for line in lines] == [digest[:16] for digest in record.results.values()]
    assert "The code differs" not in shown


def test_comparison__names_what_differs(verdict: Verdict) -> None:
    record = read_record(run_of(verdict))
    others = {name: digest for name, digest in record.results.items() if name != "refit"} | {"students": "0" * 64}
    lines = flows.reproduce.comparison(record, record.model_copy(update={"results": others}))
    assert [line.split()[-1] for line in lines[1:]] == ["same", "same", "same", "DIFFERS", "DIFFERS"]
    assert lines[-1].split()[2] == "nothing"


def test_reproduce__other_data_are_named(verdict: Verdict, capfd: pytest.CaptureFixture[str]) -> None:
    path = datasets_folder() / "again-slice.csv"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[-1].replace("23:59", "23:58") + "\n")
    try:
        assert flows.reproduce.main([run_of(verdict)]) == 1
    finally:
        path.write_text(whole)
    assert "again-slice.csv is not the file that the run has read: its SHA-256 differs" in capfd.readouterr().err


def test_source_then__is_made_of_the_copies_that_were_read(tmp_path: Path) -> None:
    spec = meter(name="stored", source__path="s3://meters/**/*.csv")
    digests = {}
    for number, name in enumerate(("2024/a.csv", "2025/a.csv")):
        for version in ("then", "now"):
            copy = copies_folder("stored") / f"@{version}{number}" / name
            copy.parent.mkdir(parents=True)
            copy.write_text(f"{name} {version}")
            if version == "then":
                digests[name] = file_digest(copy)
    source = flows.reproduce.source_then(spec, digests, tmp_path)
    read = relative_names(source_files(source))
    assert {name: path.read_text() for name, path in read.items()} == {name: f"{name} then" for name in digests}
    with pytest.raises(DataError, match=r"^2023/a\.csv: the run has read it, it is gone$"):
        flows.reproduce.source_then(spec, digests | {"2023/a.csv": "0" * 64}, tmp_path / "again")


@pytest.mark.parametrize("arguments", [[], [""], ["one", "two"]])
def test_reproduce__without_a_run_says_what_to_name(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert flows.reproduce.main(arguments) == 1
    assert "name one run: make reproduce RUN=" in capfd.readouterr().err


def test_read_record__of_a_run_without_one(verdict: Verdict, tmp_path: Path) -> None:
    experiment = mlflow.MlflowClient().create_experiment("bare", artifact_location=tmp_path.as_uri())
    bare = mlflow.MlflowClient().create_run(experiment).info.run_id
    for run_id in ("0" * 32, bare):
        with pytest.raises(RegistryError, match=f"run {run_id} has no record.json: it did not end"):
            read_record(run_id)
