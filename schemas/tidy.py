"""The contracts of the tidy flow."""

from pydantic import Field

from schemas.manifests import Manifest
from tutelage.contract import Contract


class TidyParameters(Contract):
    """How long caches and results stay."""

    cache_days: int = Field(
        60,
        ge=7,
        title="Caches [days]",
        description="Days since its last use after which what can be computed or downloaded again is removed.",
    )
    result_days: int = Field(
        800,
        ge=30,
        title="Results [days]",
        description="Days after which forecasts, verifications, reports, backtests and studies are removed.",
    )
    only_list: bool = Field(False, title="Only list", description="Name what would be removed, and remove nothing.")


class TidiedManifest(Manifest):
    """What was removed, or would be: bytes by folder of the home."""

    removed_bytes: dict[str, int]
