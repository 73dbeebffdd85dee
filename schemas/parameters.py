"""Parameters that flows share. Each flow has its own model, which the Prefect page shows as a form."""

import datetime as dt
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tutelage.data.dataset import DATASET_NAME


def _as_utc(time: dt.datetime | None) -> dt.datetime | None:
    return time.replace(tzinfo=dt.UTC) if time is not None and time.tzinfo is None else time


AsOf = Annotated[
    dt.datetime | None,
    AfterValidator(_as_utc),
    Field(
        title="As of",
        description="Read no data after this time; without a zone it is UTC. Empty: the replayed time where the "
        "dataset is replayed, else the end of the data.",
    ),
]
"""The time at which a flow works."""


Engine = Annotated[
    str,
    Field(
        pattern=r"^(local|ray|ray://\S+)$",
        title="Engine",
        description="Where the pieces run. local: one after another, here. ray: side by side on the Ray cluster that "
        "RAY_ADDRESS names, else on this machine's cores. ray://host:10001: on the cluster there.",
    ),
]
"""Where the pieces of a backtest or a study run."""


class TaskParameters(BaseModel):
    """A forecasting task: a dataset and a horizon."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(
        "household",
        pattern=DATASET_NAME,
        title="Dataset",
        description="Name of a dataset spec in deployments/datasets.",
    )
    horizon_hours: int = Field(
        24,
        ge=1,
        le=168,
        title="Horizon [h]",
        description="Number of hours to forecast. The model is named dataset-horizon.",
    )

    @property
    def task(self) -> str:
        """The name of the task and of its registered model: household-24h."""
        return f"{self.dataset}-{self.horizon_hours}h"


class DatedParameters(TaskParameters):
    """A forecasting task at a time."""

    as_of: AsOf = None


class HistoryParameters(DatedParameters):
    """A forecasting task at a time, and the history that its forecaster learns from."""

    lookback_hours: int = Field(
        168, ge=1, le=1008, title="Lookback [h]", description="Number of past hours that the student sees."
    )
    history_days: int | None = Field(
        100,
        ge=10,
        le=20000,
        title="History [days]",
        description="Days of training and validation together, directly before the test part. Empty: all available.",
    )
    validation_share: float = Field(
        0.2,
        ge=0.05,
        le=0.5,
        title="Validation share",
        description="Share of the history, at its end, on which a study's trials stop. A retrain's students stop on "
        "each fifth of the history in turn.",
    )
