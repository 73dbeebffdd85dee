"""Kinds of networks and the training budget, as plain values that can be read without torch."""

from typing import Annotated, Literal

from pydantic import Field

from tutelage.contract import Contract

Architecture = Literal["mlp", "linear", "tcn", "patch", "inverted"]


Kind = Literal["mlp", "linear", "tcn", "patch", "inverted", "boosted"]
"""Kinds of teachers: a network's architecture, or gradient-boosted trees."""


Head = Literal["categorical", "quantiles", "point"]


PointLoss = Literal["squared", "smooth"]
Pretrained = Literal["fracast"]
"""Pretrained models that can teach, or be averaged with a network."""
PRETRAINED_HOURS: dict[Pretrained, int] = {"fracast": 48}
"""How far ahead each forecasts."""
Base = Literal["none", "simple"]
"""What a network's forecast is averaged with."""


Width = Annotated[int, Field(ge=4, le=2048)]


class Budget(Contract):
    """How long and how a network is trained. Student and twin have the same budget."""

    epochs: int = Field(150, ge=1, le=2000, description="Maximum number of epochs.")
    patience: int = Field(10, ge=1, le=200, description="Number of epochs without improvement before training stops.")
    batch_size: int = Field(128, ge=8, le=8192, description="Number of windows per step.")
    learning_rate: float = Field(1e-3, gt=0, le=0.1, description="Learning rate of AdamW.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Weight decay of AdamW.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of hidden units dropped during training.")
