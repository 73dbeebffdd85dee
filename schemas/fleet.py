"""The contracts of the fleet flow."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.manifests import Manifest
from schemas.parameters import Engine
from schemas.retrain import RetrainParameters
from tutelage.data.dataset import DATASET_NAME


class FleetParameters(BaseModel):
    """Which datasets to retrain a forecaster of each, with the same parameters otherwise."""

    model_config = ConfigDict(extra="forbid")

    datasets: tuple[Annotated[str, Field(pattern=DATASET_NAME)], ...] = Field(
        min_length=1,
        title="Datasets",
        description="Names of dataset specs in deployments/datasets: groups of series, or targets of one dataset.",
    )
    each: RetrainParameters = Field(
        RetrainParameters(),
        title="Each",
        description="The parameters of every retrain; the dataset in it is replaced by each of the datasets.",
    )

    engine: Engine = "local"

    @field_validator("datasets")
    @classmethod
    def _are_different(cls, datasets: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in datasets if datasets.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is named twice")
        return datasets

    def of(self, dataset: str) -> RetrainParameters:
        """The parameters of one dataset's retrain."""
        return self.each.model_copy(update={"dataset": dataset})


class FleetRow(BaseModel):
    """One dataset's retrain: the registered version and its alias, or why there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    version: str | None = None
    alias: str | None = None
    sentence: str


class FleetManifest(Manifest):
    """The retrains of a fleet, in the order of its datasets."""

    rows: list[FleetRow]

    @property
    def failed(self) -> list[FleetRow]:
        """Those that registered nothing."""
        return [row for row in self.rows if row.version is None]
