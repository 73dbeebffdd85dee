import shutil
from pathlib import Path

import pytest

from runtime.registry import CHAMPION, client
from schemas.manifests import RunManifest
from tasks.retrain.champion import fetch_champion
from tests.runtime.builders import exported_student, register_folder
from tutelage.errors import RegistryError

RUN = RunManifest(key="k", experiment_id="0", run_id="another", children={})


def test_fetch_champion__there_may_be_none() -> None:
    assert fetch_champion.fn("nobodys-2h", RUN) is None


def test_fetch_champion__whose_files_are_gone_ends_the_retrain(tmp_path: Path) -> None:
    name = "gone-2h"
    version = register_folder(name, exported_student(tmp_path / "export").parent)
    client().set_registered_model_alias(name, CHAMPION, version)
    source = Path(client().get_model_version_download_uri(name, version).removeprefix("file://"))
    hidden = source.with_name(f"{source.name}-hidden")
    source.rename(hidden)
    with pytest.raises(RegistryError, match=f"{name}/{version} can't be downloaded from the registry"):
        fetch_champion.fn(name, RUN)
    hidden.rename(source)
    assert fetch_champion.fn(name, RUN) == version
    shutil.rmtree(source)
    assert fetch_champion.fn(name, RUN) == version, "it was downloaded before"
