"""Views, the privileged data of a teacher, as plain values."""

from collections.abc import Collection

from pydantic import Field, model_validator

from tutelage.contract import Contract


class Views(Contract):
    """What the teacher sees and the student never will."""

    future_sigma: float | None = Field(
        2.0,
        ge=0,
        le=20,
        description="Noise on the future values of the target, in standard deviations of the training part. "
        "Empty: the teacher does not see the future.",
    )
    future_sigma_end: float | None = Field(
        None,
        ge=0,
        le=20,
        description="Noise at the end of the teacher's training: it changes linearly from future_sigma to this value, "
        "which the soft labels also have. Empty: future_sigma throughout.",
    )
    minutes_hours: int = Field(
        3,
        ge=0,
        le=168,
        description="Number of past hours whose raw readings the teacher sees. 0: none.",
    )
    auxiliary: bool = Field(True, description="Show the teacher the past of the privileged columns.")
    auxiliary_future_sigma: float | None = Field(
        None,
        ge=0,
        le=20,
        description="Noise on the future values of the privileged columns, such as measured weather, in their standard "
        "deviations; 0: as measured. Empty: the teacher does not see them.",
    )
    relative_hours: int | None = Field(
        None,
        ge=1,
        le=167,
        description="A teacher in the relative future: it forecasts this many hours, and stands at every such step of "
        "the horizon in turn, with the actual values up to there. Empty: it stands where the student does.",
    )
    placebo: bool = Field(
        False,
        description="A control: give each window the privileged values of another window of its part, which carry no "
        "information about it. Any gain that remains does not come from privileged data.",
    )

    @model_validator(mode="after")
    def _has_a_start(self) -> "Views":
        if self.future_sigma_end is not None and self.future_sigma is None:
            raise ValueError("future_sigma_end: without future_sigma the teacher does not see the future")
        return self

    @property
    def any(self) -> bool:
        """Whether the teacher sees anything that the student doesn't see."""
        return self.sees_target_future or self.minutes_hours > 0 or self.auxiliary or self.sees_auxiliary_future

    @property
    def sees_target_future(self) -> bool:
        """Whether the teacher sees values of the target over the horizon."""
        return self.future_sigma is not None or self.relative_hours is not None

    @property
    def sees_auxiliary_future(self) -> bool:
        """Whether the teacher sees privileged columns over the horizon."""
        return self.auxiliary_future_sigma is not None

    @property
    def is_noisy(self) -> bool:
        """Whether two draws of the views differ."""
        return self.future_sigma is not None or bool(self.auxiliary_future_sigma)

    @property
    def sentence(self) -> str:
        """The views in words."""
        seen = []
        if self.future_sigma is not None:
            until = "" if self.future_sigma_end is None else f" to {self.future_sigma_end:g}"
            seen.append(f"the future with noise of σ = {self.future_sigma:g}{until}")
        if self.minutes_hours:
            seen.append(f"raw readings of {self.minutes_hours} h")
        if self.auxiliary:
            seen.append("auxiliary sensors")
        if self.auxiliary_future_sigma is not None:
            seen.append(f"auxiliary sensors over the horizon with noise of σ = {self.auxiliary_future_sigma:g}")
        if self.relative_hours is not None:
            seen.append(f"actual values up to {self.relative_hours} h before")
        return ", ".join(seen) or "what the student sees"

    def without(self, absent: Collection[str]) -> "Views":
        """The views without those of kinds of data that are absent, of `future`, `minutes` and `auxiliary`."""
        changes: dict[str, object] = {}
        if "future" in absent:
            changes |= {"future_sigma": None, "future_sigma_end": None, "relative_hours": None}
        if "minutes" in absent:
            changes["minutes_hours"] = 0
        if "auxiliary" in absent:
            changes |= {"auxiliary": False, "auxiliary_future_sigma": None}
        return self.model_copy(update=changes)

    def after(self, share: float) -> "Views":
        """The views after a share of the teacher's epochs, from 0 to 1: with the noise at that time and no schedule."""
        if self.future_sigma is None or self.future_sigma_end is None:
            return self
        sigma = self.future_sigma + min(share, 1.0) * (self.future_sigma_end - self.future_sigma)
        return self.model_copy(update={"future_sigma": sigma, "future_sigma_end": None})


UNPRIVILEGED = Views(future_sigma=None, minutes_hours=0, auxiliary=False)
"""No view: such a teacher sees only what the student sees."""
