"""The contracts of the flows approve and rollback: a person's decisions about registered versions."""

from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field

MODEL = r"^[a-z][a-z0-9-]*-[0-9]+h$"


class ApprovalParameters(BaseModel):
    """Which version to ask a decision for, and how long to wait for it."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=MODEL, title="Model", description="Name of the registered model, such as household-24h.")
    version: int = Field(ge=1, title="Version", description="Version that waits for approval.")
    wait_minutes: int = Field(
        24 * 60,
        ge=1,
        le=7 * 24 * 60,
        title="Wait [min]",
        description="Maximum waiting time; after it nothing is promoted.",
    )


class Decision(RunInput):
    """The form for a decision on the Prefect page."""

    promote: bool = Field(False, title="Promote", description="Make this version the champion.")
    by: str = Field(min_length=1, max_length=100, title="By", description="Name of the person who decides.")
    why: str = Field("", max_length=1000, title="Why", description="Reason, recorded with the version.")


class RollbackParameters(BaseModel):
    """Which earlier version to make the champion again, who decides it, and why."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=MODEL, title="Model", description="Name of the registered model, such as household-24h.")
    version: int = Field(ge=1, title="Version", description="Version to make the champion.")
    by: str = Field(min_length=1, max_length=100, title="By", description="Name of the person who decides.")
    why: str = Field(min_length=1, max_length=1000, title="Why", description="Reason, recorded with the version.")


class Promoted(BaseModel):
    """The champion before and after a decision; `before` is None where there was none."""

    name: str
    before: str | None
    after: str | None
