"""The contracts of the backtest flow."""

import datetime as dt
from pathlib import Path

from pydantic import Field

from schemas.manifests import Manifest
from schemas.parameters import Engine
from schemas.retrain import RetrainParameters
from schemas.training import TrainingParameters
from tutelage.forecasts import Contender


class BacktestParameters(TrainingParameters):
    """Which forecaster to retrain at several origins in the past and evaluate on the period after each.

    `as_of` is the end of the last evaluation period.
    """

    origins: int = Field(6, ge=1, le=100, title="Origins", description="Number of retrains.")
    period_days: int = Field(
        30,
        ge=7,
        le=365,
        title="Evaluation period [days]",
        description="Days from one origin to the next, on which the forecaster is evaluated.",
    )

    engine: Engine = "local"

    def ending(self, end: dt.datetime) -> RetrainParameters:
        """The parameters of one origin's retrain, evaluated on the period up to `end`."""
        shared = {name: getattr(self, name) for name in TrainingParameters.model_fields}
        return RetrainParameters(**shared | {"as_of": end}, test_days=self.period_days, refit=False, promotion="never")


class BacktestManifest(Manifest):
    """A backtest's table and plot, and the gains in mean CRPS over all periods.

    left_out: number of periods that were not evaluated
    floor: the best of the simple forecasts over all periods, with the gain of what would have been registered over it
    gain_over_unprivileged: None where no unprivileged students were trained
    origins_with_gain: number of periods in which the students were better than their twins
    """

    folder: Path
    run_id: str
    origins: int
    left_out: int
    floor: Contender
    gain_over_floor: float
    origins_ahead_of_floor: int
    gain_over_twin: float
    gain_over_unprivileged: float | None
    origins_with_gain: int
