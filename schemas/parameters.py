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
        description="Nothing after this time is read; without a zone it is UTC. Empty: the replayed time where the "
        "dataset is replayed, else the end of the data.",
    ),
]
"""The clock of a flow."""

HowToTrain = Annotated[Recipe, Field(title="Recipe", description="Teacher, student and the distillation between them.")]
Seed = Annotated[
    int,
    Field(ge=0, le=2**31 - 1, title="Seed", description="The same seed, data and code: the same result."),
]
Pairs = Annotated[
    int,
    Field(
        ge=1,
        le=32,
        title="Pairs",
        description="Students, each with its twin, trained side by side from first weights of their own. The verdict "
        "is on the mean of all: one pair is a draw of luck. The first pair's better half may be registered.",
    ),
]
Control = Annotated[
    bool,
    Field(
        title="Control",
        description="Train further students, by as many teachers that see nothing more than a student does. Against "
        "their figures the verdict tells what the privileged data brought from what distillation alone brings.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    Field(title="Device", description="auto takes CUDA where there is one, then MPS, then the CPU."),
]


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


class DatedParameters(TaskParameters):
    """A forecasting task at a time."""

    as_of: AsOf = None


class HistoryParameters(DatedParameters):
    """What is learned from."""

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


def _require_shorter_teachers(recipe: Recipe, horizon_hours: int) -> None:
    longest = max(recipe.teacher_horizons, default=0)
    if longest >= horizon_hours:
        raise ValueError(f"recipe.teacher_horizons: {longest} h is not shorter than the horizon, {horizon_hours} h")


class RetrainParameters(HistoryParameters):
    """Which forecaster to retrain, on what history, how, and what happens to the result."""

    test_days: int = Field(
        120, ge=7, le=2000, title="Test [days]", description="Last days of the data, for the verdict alone."
    )
    refit: bool = Field(
        True,
        title="Refit",
        description="After the verdict, train the winner once more on all parts, for the epochs that were chosen, and "
        "register that. Without it the version that was judged is registered, which has not seen the test part.",
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
    seed: Seed = 0
    pairs: Pairs = 5
    control: Control = True
    device: Device = "auto"
    recipe: HowToTrain = Recipe()

    @property
    def control_recipe(self) -> Recipe | None:
        """How the control's teachers are trained; None: there is no control."""
        return self.recipe.without_privilege if self.control and self.recipe.has_control else None

    @model_validator(mode="after")
    def _fits_together(self) -> "RetrainParameters":
        _require_shorter_teachers(self.recipe, self.horizon_hours)
        if self.refit and self.recipe.gate == "windows":
            raise ValueError(
                "refit: a gate by windows is of the windows that the judged student learned from, and a refit learns "
                "from more; set refit to false, or the gate to hours"
            )
        return self


class BacktestParameters(HistoryParameters):
    """How a forecaster would have fared: retrained at several origins of the past, and judged on what came after each.

    `as_of` is the end of the last stretch.
    """

    origins: int = Field(6, ge=1, le=100, title="Origins", description="How often it is retrained.")
    stretch_days: int = Field(
        30, ge=7, le=365, title="Stretch [days]", description="Days from one origin to the next, which it is judged on."
    )
    seed: Seed = 0
    pairs: Pairs = 5
    control: Control = True
    device: Device = "auto"
    recipe: HowToTrain = Recipe()

    @model_validator(mode="after")
    def _fits_together(self) -> "BacktestParameters":
        _require_shorter_teachers(self.recipe, self.horizon_hours)
        return self

    def ending(self, end: dt.datetime) -> RetrainParameters:
        """One origin's retrain: judged on the stretch up to `end`."""
        training = ("seed", "pairs", "control", "device", "recipe")
        shared = {name: getattr(self, name) for name in (*HistoryParameters.model_fields, *training)}
        return RetrainParameters(**shared | {"as_of": end}, test_days=self.stretch_days, refit=False, promotion="never")
