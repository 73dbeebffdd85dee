"""The champion version and its files."""

from runtime.registry import CHALLENGER, champion_version, download_version, exported_in, version_of_alias
from runtime.stage import stage
from schemas.forecast import ChampionManifest
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import RegistryError
from tutelage.files import read_json
from tutelage.model.inference import CARD, grid_of


@stage("champion", run_name="champion {name}")
def find_champion(name: str, spec: DatasetSpec) -> ChampionManifest:
    """Find the current champion; it is downloaded only once.

    Raises RegistryError where there is no champion, or it has another step than the spec.
    """
    version = champion_version(name)
    if version is None:
        raise RegistryError(f"{name} has no champion yet: {_what_to_do(name)}")
    folder = download_version(name, version)
    card = read_json(exported_in(folder) / CARD)
    if (step := grid_of(card)).step != spec.student_step:
        raise RegistryError(
            f"{name}: champion {version} forecasts steps of {step.name}, and the spec's student_step is "
            f"{spec.grid.name}: retrain it, and approve the new version"
        )
    return ChampionManifest(
        folder=folder,
        name=name,
        version=version,
        lookback_hours=card["lookback_hours"],
        complete_hours=card.get("complete_hours", card["lookback_hours"]),
        horizon_hours=card["horizon_hours"],
        trained_until_utc=card["trained_until_utc"],
    )


def _what_to_do(name: str) -> str:
    challenger = version_of_alias(name, CHALLENGER)
    if challenger is None:
        return "retrain it first"
    reason = challenger.tags.get("promotion", "it was not promoted")
    return f"version {challenger.version} is a challenger ({reason}); a person can make it the champion: flow rollback"
