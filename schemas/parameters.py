"""What the flows take: one model a flow, which the Prefect page shows as a form."""

import datetime as dt
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tutelage.recipe import Recipe


def _as_utc(time: dt.datetime | None) -> dt.datetime | None:
    return time.replace(tzinfo=dt.UTC) if time is not None and time.tzinfo is None else time


AsOf = Annotated[
    dt.datetime | None,
    AfterValidator(_as_utc),
    Field(
        title="As of",
        description="Nothing after this time is read; without a zone it is UTC. Empty: the end of the data.",
    ),
]
"""The clock of a flow."""


class TaskParameters(BaseModel):
    """Which forecasting task a flow is about."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(
        "household",
        pattern=r"^[a-z][a-z0-9-]*$",
        title="Dataset",
        description="Name of a dataset spec in deployments/datasets.",
    )
    horizon_hours: int = Field(
        24,
        ge=1,
        le=168,
        title="Horizon [h]",
        description="Hours to forecast. The model is called dataset-horizon.",
    )

    @property
    def task(self) -> str:
        """The forecasting task, which is also the registered model's name: household-24h."""
        return f"{self.dataset}-{self.horizon_hours}h"


class RetrainParameters(TaskParameters):
    """Which forecaster to retrain, on what history, how, and what happens to the result."""

    lookback_hours: int = Field(
        168, ge=1, le=1008, title="Lookback [h]", description="Past hours that the student sees."
    )
    history_days: int | None = Field(
        100,
        ge=10,
        le=20000,
        title="History [days]",
        description="Days of training and validation together, right before the test part. Empty: all there are.",
    )
    validation_share: float = Field(
        0.2,
        ge=0.05,
        le=0.5,
        title="Validation share",
        description="Last share of the history, for every choice.",
    )
    test_days: int = Field(
        120, ge=7, le=2000, title="Test [days]", description="Last days of the data, for the verdict alone."
    )
    refit: bool = Field(
        True,
        title="Refit",
        description="After the verdict, train the winner once more on all parts, for the epochs that were chosen, and "
        "register that. Without it the version that was judged is registered, which has not seen the test part.",
    )
    as_of: AsOf = None
    recipe: Recipe = Field(Recipe(), title="Recipe", description="Teacher, student and the distillation between them.")
    seed: int = Field(0, ge=0, le=2**31 - 1, title="Seed", description="The same seed, data and code: the same result.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", title="Device", description="auto takes CUDA where there is one, then MPS, then the CPU."
    )
    promotion: Literal["automatic", "approval", "never"] = Field(
        "automatic",
        title="Promotion",
        description="automatic: a version that beats the present champion becomes the champion. "
        "approval: it is registered as challenger, and the flow approve asks a person. "
        "never: it is registered as challenger only.",
    )
    reason: str | None = Field(
        None, max_length=1000, title="Reason", description="Why this retrain was started; the monitor says it here."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "RetrainParameters":
        longest = max(self.recipe.teacher_horizons, default=0)
        if longest >= self.horizon_hours:
            raise ValueError(
                f"recipe.teacher_horizons: {longest} h is not shorter than the horizon, {self.horizon_hours} h"
            )
        if self.refit and self.recipe.gate != "none":
            raise ValueError(
                f"refit: a gate by {self.recipe.gate} is judged on a part that is held out, and a refit holds none "
                "out; set refit to false"
            )
        return self
