import pytest

from runtime.registry import CHAMPION, client, download_version
from schemas.retrain import RefitManifest, RegisteredManifest
from tasks.forecast.champion import find_champion
from tests.tutelage.data.builders import meter
from tutelage.errors import RegistryError


def test_find_champion__is_the_version_with_the_alias(registered: RegisteredManifest, refitted: RefitManifest) -> None:
    champion = find_champion.fn(registered.name, meter())
    assert (champion.name, champion.version) == ("stage-meter-2h", "1")
    assert (champion.complete_hours, champion.horizon_hours) == (6, 2)
    assert champion.lookback_hours >= 6
    assert champion.trained_until_utc == refitted.end_utc
    assert champion.folder == download_version(registered.name, 1)


def test_find_champion__of_a_version_registered_before_0_2(old_version: tuple[str, str]) -> None:
    name, version = old_version
    with pytest.raises(RegistryError, match=f"{name} has no champion"):
        find_champion.fn(name, meter())
    client().set_registered_model_alias(name, CHAMPION, version)
    champion = find_champion.fn(name, meter())
    client().delete_registered_model_alias(name, CHAMPION)
    assert (champion.version, champion.lookback_hours, champion.complete_hours) == (version, 6, 6)


def test_find_champion__says_what_to_do_where_there_is_none() -> None:
    with pytest.raises(RegistryError, match="nowhere-2h has no champion yet: retrain it first"):
        find_champion.fn("nowhere-2h", meter())
