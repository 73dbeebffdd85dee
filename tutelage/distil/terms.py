"""Further terms of a student's loss against its teacher, as plain values."""

from pydantic import Field

from tutelage.contract import Contract

HIDDEN_STATE_TERMS = {
    "windows": "hidden",
    "features": "hidden",
    "distances": "hidden",
    "variables": "tokens",
    "attention": "maps",
}
"""Terms that compare hidden states, and the field of `States` that each compares."""

SHORTEST_HORIZON = {"scale": 2, "period": 4}
"""The shortest horizon of terms that compare hours of the forecast with each other."""


class Terms(Contract):
    """Weights of further losses against the teacher, added to the head's losses. 0: none."""

    scale: float = Field(0.0, ge=0, le=100, description="Forecast means over blocks of 2, 4 and 8 hours (TimeDistill).")
    period: float = Field(
        0.0, ge=0, le=100, description="Periods of the forecast mean (TimeDistill); horizons from 4 h."
    )
    windows: float = Field(0.0, ge=0, le=100, description="Similarities between the windows of a batch (SPKD).")
    features: float = Field(
        0.0, ge=0, le=100, description="The teacher's hidden state, through a projection (FitNets)."
    )
    distances: float = Field(0.0, ge=0, le=100, description="Relative distances between the windows of a batch (RKD).")
    times: float = Field(
        0.0, ge=0, le=100, description="Similarities between the hours of a forecast; not for a point head."
    )
    variables: float = Field(
        0.0, ge=0, le=100, description="Similarities between variables; teacher and student must both be inverted."
    )
    attention: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Attention maps (TimeKD); teacher and student must both be inverted or both be patch.",
    )

    @property
    def any(self) -> bool:
        """Whether any term has a weight."""
        return any(vars(self).values())

    @property
    def needs_hidden_states(self) -> bool:
        """Whether any term compares hidden states."""
        return any(getattr(self, name) for name in HIDDEN_STATE_TERMS)
