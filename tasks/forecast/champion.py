"""The champion version and its files."""

from runtime.registry import CHALLENGER, champion_version, download_version, exported_in, version_of_alias
from runtime.stage import stage
from schemas.forecast import ChampionManifest
from tutelage.errors import RegistryError
from tutelage.files import read_json
from tutelage.model.inference import CARD


@stage("champion", run_name="champion {name}")
def find_champion(name: str) -> ChampionManifest:
    """Find the current champion; it is downloaded only once.

    Raises RegistryError where there is no champion.
    """
    version = champion_version(name)
    if version is None:
        raise RegistryError(f"{name} has no champion yet: {_what_to_do(name)}")
    folder = download_version(name, version)
    card = read_json(exported_in(folder) / CARD)
    return ChampionManifest(
        folder=folder,
        name=name,
        version=version,
        lookback_hours=card["lookback_hours"],
        complete_hours=card.get("complete_hours", card["lookback_hours"]),
        horizon_hours=card["horizon_hours"],
        step_minutes=card.get("step_minutes", 60),
        trained_until_utc=card["trained_until_utc"],
    )


def _what_to_do(name: str) -> str:
    challenger = version_of_alias(name, CHALLENGER)
    if challenger is None:
        return "retrain it first"
    reason = challenger.tags.get("promotion", "it was not promoted")
    return f"version {challenger.version} is a challenger ({reason}); a person can make it the champion: flow rollback"
