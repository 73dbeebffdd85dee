"""The exported student: an ONNX graph that includes scaler, head and quantiles, and a card of plain values.

A folder with `student.onnx` and `student.json` is all that a forecast needs: see `tutelage.model.inference`.
"""

import datetime as dt
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.calendar import public_holidays
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.files import folder_written_whole, write_json
from tutelage.forecasts import QUANTILE_LEVELS
from tutelage.model.heads import Bins, forecast_of
from tutelage.model.inference import CARD, GRAPH
from tutelage.model.networks import Forecaster

HOLIDAY_YEARS_AHEAD = 10


class _Graph(nn.Module):
    """The exported computation: a network of one member, then its head's mean and quantiles."""

    def __init__(self, network: Forecaster, bins: Bins) -> None:
        super().__init__()
        self.edges: Tensor
        self.scale: Tensor
        self.network = network
        self.register_buffer("edges", torch.tensor(bins.edges, dtype=torch.float32))
        self.register_buffer("scale", network.observed_scaler[:, 0].clone())

    def forward(self, observed: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (windows, horizon) and quantiles (windows, horizon, levels), in the target's unit."""
        outputs = self.network(observed, known).squeeze(0)
        return forecast_of(outputs, self.network.config.head, edges=self.edges, scale=self.scale)


def student_card(network: Forecaster, spec: DatasetSpec, *, trained_until: dt.datetime) -> dict[str, Any]:
    """The card of an exported student: columns, time zone, holidays, and the end of its training data.

    The card lists the holidays, so that the model needs no calendar library where it runs; it refuses to forecast
    beyond the last listed year.
    """
    years = range(1990, trained_until.year + HOLIDAY_YEARS_AHEAD + 1)
    return {
        "dataset": spec.name,
        "target": spec.target,
        "unit": spec.target_column.unit,
        "lookback_hours": network.config.lookback,
        "horizon_hours": network.config.horizon,
        "observed": spec.names(Role.OBSERVED),
        "known_future": spec.names(Role.KNOWN_FUTURE),
        "timezone": spec.calendar.timezone,
        "holidays": public_holidays(spec.calendar, years),
        "holidays_until_year": years[-1] if spec.calendar.country else None,
        "quantile_levels": list(QUANTILE_LEVELS),
        "trained_until_utc": trained_until.isoformat(),
    }


def export_student(network: Forecaster, bins: Bins, card: dict[str, Any], folder: Path) -> None:
    """Write `student.onnx` and `student.json` into `folder`, completely or not at all.

    Raises ValueError where the network has privileged inputs or more than one member: it is not a student.
    """
    if network.config.privileged or network.members != 1:
        raise ValueError("only a network of one member without privileged inputs is a student")
    config = network.config
    graph = _Graph(network.cpu().eval(), bins).eval()
    example = (
        torch.zeros(2, config.lookback, config.observed),
        torch.zeros(2, config.horizon, config.known),
    )
    any_number = {"observed": {0: torch.export.Dim.DYNAMIC}, "known": {0: torch.export.Dim.DYNAMIC}}
    with folder_written_whole(folder) as part, warnings.catch_warnings():
        # torch's exporter uses functions that torch has deprecated, and warns that torchvision is not installed.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            graph,
            example,
            part / GRAPH,
            input_names=["observed", "known"],
            output_names=["mean", "quantiles"],
            dynamic_shapes=any_number,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        write_json(part / CARD, card)
