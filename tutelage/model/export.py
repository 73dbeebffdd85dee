"""The exported student: an ONNX graph that includes scaler, head and quantiles, and a card of plain values.

A folder with `student.onnx` and `student.json` is all that a forecast needs: see `tutelage.model.inference`.
"""

import datetime as dt
import logging
import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tutelage.data.calendar import public_holidays
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.sizes import Sizes
from tutelage.files import folder_written_whole, write_json
from tutelage.forecasts import QUANTILE_LEVELS, Contender, normal_interpolation
from tutelage.model.base import SAME_HOUR_DAYS, SEEN_DAYS, Base, quantile_weights, same_hour
from tutelage.model.days import fill_from_earlier, fill_from_later
from tutelage.model.heads import Bins, forecast_of
from tutelage.model.inference import AVERAGE, CARD, GRAPH, grid_of, plain_grid
from tutelage.model.linear import CALENDAR_COLUMNS, DAY_HOURS, LAST_WORKDAY, LinearForecaster
from tutelage.model.networks import Forecaster
from tutelage.model.pretrained import CREDITS, pretrained_network
from tutelage.model.trees import LEVELS, PAST_DAYS, tree_quantiles

HOLIDAY_YEARS_AHEAD = 10
OUTPUTS = [*AVERAGE, "member_means", "member_quantiles"]


class _Linear(nn.Module):
    """The computation of a `LinearForecaster`, in the same terms."""

    intercept: Tensor
    past: Tensor
    clock: Tensor
    weekday: Tensor
    planned: Tensor
    residuals: Tensor
    size_range: Tensor
    lead: Tensor

    def __init__(self, linear: LinearForecaster) -> None:
        super().__init__()
        for name, values in vars(linear).items():
            self.register_buffer(name, torch.from_numpy(values).float())
        horizon = linear.past.shape[2]
        self.register_buffer("lead", torch.arange(horizon))

    def forward(self, past: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (windows, horizon) and quantiles (windows, horizon, levels), in the target's unit."""
        hour, weekday = known[..., 0].long(), known[..., 1].long()
        free = (weekday > LAST_WORKDAY) | (known[..., 2] > 0)
        clock = hour + DAY_HOURS * free.long()
        mean, log_size = (
            self.intercept[part]
            + past @ self.past[part]
            + self._entry(self.clock[part], clock)
            + self._entry(self.weekday[part], weekday)
            + (known[..., CALENDAR_COLUMNS:] * self.planned[part]).sum(dim=-1)
            for part in range(2)
        )
        residuals = self.residuals.flatten(0, 1)[self.lead * self.residuals.shape[1] + hour]
        size = log_size.clamp(self.size_range[0], self.size_range[1]).exp()
        return mean, mean.unsqueeze(-1) + size.unsqueeze(-1) * residuals

    def _entry(self, table: Tensor, column: Tensor) -> Tensor:
        """Of each lead time's row the entry in a column."""
        return table.flatten()[self.lead * table.shape[1] + column]


class _Simple(nn.Module):
    """A base's simple forecasts, in the order of their weights."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.names = tuple(base.weights)
        self.grid = base.grid
        self.linear = None if base.linear is None else _Linear(base.linear)
        if base.trees is not None:
            for part, values in vars(base.trees).items():
                self.register_buffer(part, torch.from_numpy(values))
            self.register_buffer("all_levels", torch.from_numpy(normal_interpolation(LEVELS)).float())
        for name, days in SAME_HOUR_DAYS.items():
            if name in self.names:
                self.register_buffer(name.value, quantile_weights(days).float())
        if base.pretrained is not None:
            self.pretrained = pretrained_network(base.pretrained)
            self.register_buffer(
                "pretrained_levels", torch.from_numpy(normal_interpolation(self.pretrained.levels)).float()
            )
        self.register_buffer("change", torch.from_numpy(base.changes.mean).float())
        self.register_buffer("changes", torch.from_numpy(base.changes.quantiles).float())

    def forward(self, past: Tensor, near: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Means (windows, members, horizon) and quantiles (windows, members, horizon, levels).

        past: the target's past; near: its last steps, as many as the network sees
        """
        means, quantiles = [], []
        recent = self._recent_days(past)
        for name in self.names:
            if name in SAME_HOUR_DAYS:
                mean, levels = same_hour(recent[SAME_HOUR_DAYS[name]], known.shape[1], self.get_buffer(name.value))
            elif name is Contender.LAST_VALUE:
                last = near[:, -1:]
                mean, levels = last + self.get_buffer("change"), last.unsqueeze(-1) + self.get_buffer("changes")
            elif name is Contender.BOOSTED:
                trees = (self.get_buffer(part) for part in ("column", "threshold", "value"))
                native = tree_quantiles(recent[PAST_DAYS], known, *trees, grid=self.grid)
                levels = native @ self.get_buffer("all_levels")
                mean = levels.sum(dim=-1) / levels.shape[-1]
            elif name is Contender.PRETRAINED:
                levels = self.pretrained(past)[:, : known.shape[1]] @ self.get_buffer("pretrained_levels")
                mean = levels.sum(dim=-1) / levels.shape[-1]
            else:
                assert self.linear is not None
                mean, levels = self.linear(near, known)
            means.append(mean)
            quantiles.append(levels)
        return torch.stack(means, dim=1), torch.stack(quantiles, dim=1)

    def _recent_days(self, past: Tensor) -> dict[int, Tensor]:
        """The last days by their number, for each simple forecast that sees some; filled once as far as that goes."""
        numbers = {SEEN_DAYS[name] for name in self.names if name in SEEN_DAYS and name is not Contender.PRETRAINED}
        if not numbers:
            return {}
        every = fill_from_later(past, max(numbers), of_day=self.grid.of_day)
        return {days: fill_from_earlier(every[:, :days]) for days in sorted(numbers)}


class _Graph(nn.Module):
    """The exported computation: a network of one member, its head's mean and quantiles, the base's, and their average.

    The network sees the last steps of its lookback; same-hour forecasts see more, with NaN where nothing was read.
    """

    def __init__(self, network: Forecaster, bins: Bins, base: Base | None) -> None:
        super().__init__()
        self.edges: Tensor
        self.scale: Tensor
        self.shares: Tensor
        self.network = network
        self.simple = _Simple(base) if base is not None and base.weights else None
        self.atom = None if base is None else base.atom
        self.register_buffer("edges", torch.tensor(bins.edges, dtype=torch.float32))
        self.register_buffer("scale", network.observed_scaler[:, 0].clone())
        self.register_buffer("shares", torch.tensor([*_shares(base).values()]))

    def forward(self, observed: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean (windows, horizon) and quantiles (windows, horizon, levels), in the target's unit.

        Then those of each member, the network's first: (windows, members, horizon[, levels]).
        """
        near = observed[:, -self.network.config.lookback :]
        outputs = self.network(near, known).squeeze(0)
        every = forecast_of(outputs, self.network.config.head, edges=self.edges, scale=self.scale)
        means, quantiles = (each.unsqueeze(1) for each in every)
        if self.simple is not None:
            simple_means, simple_quantiles = self.simple(observed[..., 0], near[..., 0], known)
            means, quantiles = torch.cat([means, simple_means], dim=1), torch.cat([quantiles, simple_quantiles], dim=1)
        mean, average = (self.shares[:, None] * means).sum(dim=1), (self.shares[:, None, None] * quantiles).sum(dim=1)
        if self.atom is not None:
            settled = torch.where(average <= self.atom.value + self.atom.reach, self.atom.value, average)
            mean, average = mean + (settled - average).sum(dim=-1) / average.shape[-1], settled
        return mean, average, means, quantiles


def _shares(base: Base | None) -> dict[str, float]:
    """The fixed weights by the member's name."""
    return {"network": 1.0} if base is None else base.shares


def student_card(
    network: Forecaster,
    spec: DatasetSpec,
    *,
    trained_until: dt.datetime,
    base: Base | None = None,
    sizes: Sizes | None = None,
) -> dict[str, Any]:
    """The card of an exported student: columns, time zone, holidays, and the end of its training data.

    lookback_hours are the past hours that a forecast takes, complete_hours how many of them, the last ones, must have
    a value; the same-hour forecasts do with what is there of the others.

    The card lists the holidays, so that the model needs no calendar library where it runs; it refuses to forecast
    beyond the last listed year. Where it was trained on several series, it has their sizes: the graph's inputs and
    outputs are divided by them, so the caller divides and multiplies. ranges: the least and the largest value that the
    spec allows a column in a step; the model refuses others, as no student has ever seen them.
    """
    lookback, grid = network.config.lookback, spec.grid
    steps = {
        "lookback_hours": lookback if base is None else base.lookback(lookback),
        "complete_hours": lookback,
        "horizon_hours": network.config.horizon,
    }
    years = range(1990, trained_until.year + HOLIDAY_YEARS_AHEAD + 1)
    return {
        "dataset": spec.name,
        "target": spec.target,
        "unit": spec.target_column.unit,
        **{name: round(number * grid.hours) for name, number in steps.items()},
        "observed": spec.names(Role.OBSERVED),
        "known_future": spec.names(Role.KNOWN_FUTURE),
        "ranges": _ranges_of_steps(spec),
        "timezone": spec.calendar.timezone,
        **plain_grid(grid),
        "holidays": public_holidays(spec.calendar, years),
        "holidays_until_year": years[-1] if spec.calendar.country else None,
        "quantile_levels": list(QUANTILE_LEVELS),
        "shares": _shares(base),
        "atom": None if base is None or base.atom is None else asdict(base.atom),
        "trained_until_utc": trained_until.isoformat(),
        **({} if base is None or base.pretrained is None else {"contains": CREDITS[base.pretrained]}),
        **({} if sizes is None else {"sizes": asdict(sizes)}),
    }


def _ranges_of_steps(spec: DatasetSpec) -> dict[str, list[float]]:
    ranges = {}
    for column in spec.columns:
        readings = spec.readings_per_step if column.aggregation == "sum" else 1
        ends = [each * number for each in (column.minimum, column.maximum) for number in (1, readings)]
        if column.role is not Role.PRIVILEGED and all(map(math.isfinite, ends)):
            ranges[column.name] = [min(ends), max(ends)]
    return ranges


def export_student(
    network: Forecaster,
    bins: Bins,
    card: dict[str, Any],
    folder: Path,
    *,
    base: Base | None = None,
) -> None:
    """Write `student.onnx` and `student.json` into `folder`, completely or not at all.

    Raises ValueError where the network has privileged inputs or more than one member: it is not a student.
    """
    if network.config.privileged or network.members != 1:
        raise ValueError("only a network of one member without privileged inputs is a student")
    config = network.config
    graph = _Graph(network.cpu().eval(), bins, base).eval()
    example = (
        torch.zeros(2, grid_of(card).steps(card["lookback_hours"]), config.observed),
        torch.zeros(2, config.horizon, config.known),
    )
    any_number = {"observed": {0: torch.export.Dim.DYNAMIC}, "known": {0: torch.export.Dim.DYNAMIC}}
    with folder_written_whole(folder) as part, warnings.catch_warnings():
        # torch's exporter uses functions that torch has deprecated, and warns that torchvision is not installed.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in ("torch.onnx", "onnxscript"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph,
            example,
            input_names=["observed", "known"],
            output_names=OUTPUTS,
            dynamic_shapes=any_number,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        _keep_names_apart(program)
        program.save(part / GRAPH, external_data=False)
        _drop_traces(part / GRAPH)
        write_json(part / CARD, card)


def _keep_names_apart(program: torch.onnx.ONNXProgram) -> None:
    """Rename values inside the graph that the exporter has given the name of an output."""
    for node in program.model.graph:
        for value in node.outputs:
            if value.name in OUTPUTS and not value.is_graph_output():
                value.name = f"inner_{value.name}"


def _drop_traces(path: Path) -> None:
    """Take out where in the source each node comes from: as large as the weights, it names this machine's paths."""
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(model, path)
