import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

import runtime.registry
from runtime.paths import home
from runtime.registry import (
    CHAMPION,
    champion_version,
    client,
    download_version,
    evaluated_in,
    exported_in,
    find_version,
)
from tests.runtime.builders import DAY, register_folder
from tests.tutelage.data.builders import START
from tutelage.errors import RegistryError
from tutelage.model.inference import load_student


@pytest.fixture
def version_folder(tmp_path: Path) -> Path:
    """A version's files, without a model."""
    folder = tmp_path / "version"
    (folder / "artifacts" / "export").mkdir(parents=True)
    (folder / "artifacts" / "export" / "student.json").write_text("{}")
    return folder


def test_champion_version__is_none_until_there_is_a_champion(version_folder: Path) -> None:
    assert champion_version("champion-1h") is None  # no such model
    versions = [register_folder("champion-1h", version_folder) for _ in range(2)]
    assert champion_version("champion-1h") is None
    client().set_registered_model_alias("champion-1h", CHAMPION, versions[1])
    assert champion_version("champion-1h") == "2"


def test_find_version__names_what_is_not_there(version_folder: Path) -> None:
    register_folder("found-1h", version_folder)
    assert find_version("found-1h", 1).source == version_folder.as_uri()
    assert find_version("found-1h", "1").version == find_version("found-1h", 1).version
    with pytest.raises(RegistryError, match=r"^found-1h has no version 9$"):
        find_version("found-1h", 9)
    with pytest.raises(RegistryError, match=r"^nowhere-1h has no version 1$"):
        find_version("nowhere-1h", 1)


@pytest.mark.fault
def test_registry__does_not_take_a_broken_store_for_a_missing_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def get_model_version(self, *given: object) -> None:
            raise MlflowException("the store is down", INTERNAL_ERROR)

        get_model_version_by_alias = get_model_version

    monkeypatch.setattr(runtime.registry, "client", Broken)
    with pytest.raises(MlflowException, match="the store is down"):
        champion_version("found-1h")
    with pytest.raises(MlflowException, match="the store is down"):
        find_version("found-1h", 1)


def test_download_version__downloads_once_and_keeps(version_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_folder("kept-1h", version_folder)
    folder = download_version("kept-1h", 1)
    assert folder.is_relative_to(home() / "versions" / "kept-1h")
    assert (exported_in(folder) / "student.json").read_text() == "{}"
    shutil.rmtree(version_folder)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.artifacts, "download_artifacts", lambda **given: pytest.fail("downloaded again"))
        assert download_version("kept-1h", "1") == folder


def test_download_version__each_version_has_a_folder(version_folder: Path) -> None:
    other = version_folder.with_name("other")
    shutil.copytree(version_folder, other)
    for folder in (version_folder, other):
        register_folder("two-1h", folder)
    (other / "artifacts" / "export" / "student.json").write_text('{"other": true}')
    texts = [(exported_in(download_version("two-1h", v)) / "student.json").read_text() for v in (1, 2)]
    assert texts == ["{}", '{"other": true}']


@pytest.mark.fault
def test_download_version__without_files_says_so_and_keeps_nothing(version_folder: Path) -> None:
    register_folder("lost-1h", version_folder)
    shutil.move(version_folder, version_folder.with_name("away"))
    with pytest.raises(RegistryError, match="lost-1h/1 can't be downloaded from the registry"):
        download_version("lost-1h", 1)
    shutil.move(version_folder.with_name("away"), version_folder)
    assert (exported_in(download_version("lost-1h", 1)) / "student.json").is_file()


@pytest.mark.fault
def test_download_version__says_why_it_fails(version_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_folder("refused-1h", version_folder)

    def refuse(**given: object) -> None:
        raise MlflowException("no permission")

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", refuse)
    with pytest.raises(RegistryError, match="refused-1h/1 can't be downloaded from the registry: no permission"):
        download_version("refused-1h", 1)
    assert list((home() / "versions" / "refused-1h").iterdir()) == []


def test_evaluated_in__is_the_student_before_the_refit(version_folder: Path) -> None:
    assert evaluated_in(version_folder) == exported_in(version_folder) == version_folder / "artifacts" / "export"
    (version_folder / "judged").mkdir()
    assert evaluated_in(version_folder) == version_folder / "judged"
    (version_folder / "evaluated").mkdir()
    assert evaluated_in(version_folder) == version_folder / "evaluated"


def test_registry__reads_a_version_registered_before_0_2(old_version: tuple[str, str]) -> None:
    folder = download_version(*old_version)
    registered, evaluated = load_student(exported_in(folder)), load_student(evaluated_in(folder))
    assert evaluated_in(folder) == folder / "judged"
    assert (registered.trained_until, evaluated.trained_until) == (START + 16 * DAY, START + 12 * DAY)
    model = mlflow.pyfunc.load_model(str(folder))
    assert len(model.predict(model.input_example)) == 2
