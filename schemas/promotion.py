"""What a person decides about a registered version: to promote it, or to go back to an earlier one."""

from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field

MODEL = r"^[a-z][a-z0-9-]*-[0-9]+h$"


class ApprovalParameters(BaseModel):
    """Which version waits for a decision, and for how long."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=MODEL, title="Model", description="The registered model, household-24h.")
    version: int = Field(ge=1, title="Version", description="The version that waits.")
    wait_minutes: int = Field(
        24 * 60, ge=1, le=7 * 24 * 60, title="Wait [min]", description="Without a decision by then nothing is promoted."
    )


class Decision(RunInput):
    """The form on the Prefect page."""

    promote: bool = Field(False, title="Promote", description="Make this version the champion.")
    by: str = Field(min_length=1, max_length=100, title="By", description="Who decides.")
    why: str = Field("", max_length=1000, title="Why", description="Kept with the version.")


class RollbackParameters(BaseModel):
    """Which earlier version becomes the champion again, and who says so, for what reason."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=MODEL, title="Model", description="The registered model, household-24h.")
    version: int = Field(ge=1, title="Version", description="The version that becomes the champion.")
    by: str = Field(min_length=1, max_length=100, title="By", description="Who decides.")
    why: str = Field(min_length=1, max_length=1000, title="Why", description="Kept with the version.")


class Promoted(BaseModel):
    """The champion before and after a decision; `before` is None where there was none."""

    name: str
    before: str | None
    after: str | None
