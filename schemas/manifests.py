"""Results of stages: small values that contain the paths and digests of files, and counts."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Manifest(BaseModel):
    """A stage's result.

    in_cache_key: whether a change of it makes the stages that take it run again
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    in_cache_key: ClassVar[bool] = True


class RunManifest(Manifest):
    """The MLflow runs of one piece of work: the parent, its children by name, and the key of the work.

    It determines where progress is logged, not what is computed, so it is not part of cache keys.
    """

    in_cache_key: ClassVar[bool] = False

    key: str
    experiment_id: str
    run_id: str
    children: dict[str, str]
