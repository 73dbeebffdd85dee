"""The published protocol on ETTh1 and ETTm1: 96 steps in, 24 to 192 out, all seven variables, 12/4/4 months of 30 days.

One small network reads each variable by itself (shared weights, each window scaled by its own mean and deviation, as
RevIN, Kim et al. 2022) and the time of day; on ETTm1 also a mixture of the other variables. It forecasts 192 steps; a
shorter horizon is the first part of them, with the weights of the epoch that was best for that horizon on validation.
The loss is the absolute error, weighed by 1 / sqrt(lead) (CARD, Xue et al. 2024, arXiv:2305.12095).

Teachers are the same network and also see the noised future; σ is that of the pipeline's default recipe.
Three ensembles are trained side by side: with the future, with none, and with another window's (placebo). Students of
one seed and their twin share first weights, batches and dropout, and differ only in what they are taught. Nothing is
chosen on test.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.data.source import Source, source_files
from tutelage.distil.views import shuffle_windows
from tutelage.forecasts import Contender
from tutelage.model.layers import MemberDropout, MemberLinear

SHA256 = {
    "ETTh1": "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    "ETTm1": "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
}
STEPS_A_DAY = {"ETTh1": 24, "ETTm1": 96}
VARIABLES = 7
LOOKBACK = 96
HORIZONS = (24, 36, 48, 96, 192)
LONGEST = max(HORIZONS)
HARMONICS = 4
TEACHERS = (Contender.STUDENT, Contender.UNPRIVILEGED, Contender.PLACEBO)
"""Which students the ensembles teach, one each."""
STUDENTS = (Contender.TWIN, *TEACHERS)


@dataclass(frozen=True)
class Settings:
    """All that is set. The values were chosen on the validation parts, see docs/log.md.

    mixes: whether a variable listens to the others; sigma: of the future's noise, in training standard deviations
    """

    mixes: bool
    batch_windows: int
    validation_stride: int
    sigma: float = 2.0
    alpha: float = 0.3
    epochs: int = 5
    windows_an_epoch: int = 8400
    learning_rate: float = 6e-3
    dropout: float = 0.1
    width: int = 256
    teachers: int = 3
    seeds: int = 5


SETTINGS = {
    "ETTh1": Settings(mixes=False, batch_windows=64, validation_stride=4),
    "ETTm1": Settings(mixes=True, batch_windows=32, validation_stride=16),
}


def quick(settings: Settings) -> Settings:
    """The same, in a minute: far from trained."""
    return replace(settings, epochs=2, windows_an_epoch=1500, teachers=1, seeds=2, validation_stride=32)


def read_values(name: str) -> np.ndarray:
    """The seven variables of ETTh1 or ETTm1 from the folder in TUTELAGE_ETT, (steps, variables), as they stand.

    Raises DataError where the variable, the file or its SHA-256 is not as it should be.
    """
    [path] = source_files(Source(path=f"$TUTELAGE_ETT/{name}.csv", sha256=SHA256[name]))
    return pl.read_csv(path).drop("date").to_numpy().astype(np.float64)


@dataclass(frozen=True)
class Series:
    """Standardised values (variables, steps), the clock's features (steps, features) and the parts as rows."""

    values: Tensor
    clock: Tensor
    rows: dict[str, range]


def borders(steps_a_day: int) -> dict[str, range]:
    """The rows that the windows' targets of each part lie in: 12, 4 and 4 months of 30 days, as the field cuts them.

    A window's 96 input steps may lie in the part before: the published protocol leaves no gap.
    """
    month = 30 * steps_a_day
    return {
        "train": range(LOOKBACK, 12 * month),
        "validation": range(12 * month, 16 * month),
        "test": range(16 * month, 20 * month),
    }


def origins_of(rows: range, horizon: int) -> Tensor:
    """The first target steps of all windows whose targets lie in these rows."""
    return torch.arange(rows.start, rows.stop - horizon + 1)


def _clock(steps: int, steps_a_day: int) -> Tensor:
    """A constant and the time of day as harmonics, (steps, 1 + 2 · HARMONICS)."""
    angle = 2 * math.pi * torch.arange(steps, dtype=torch.float64) / steps_a_day
    waves = [wave(k * angle) for k in range(1, HARMONICS + 1) for wave in (torch.sin, torch.cos)]
    return torch.stack([torch.ones_like(angle), *waves], dim=1).float()


def make_series(values: np.ndarray, steps_a_day: int) -> Series:
    """Standardise by mean and deviation of the first twelve months, as the field does."""
    rows = borders(steps_a_day)
    train = values[: rows["train"].stop]
    scaled = (values - train.mean(axis=0)) / train.std(axis=0)
    return Series(torch.from_numpy(scaled.T.copy()).float(), _clock(len(values), steps_a_day), rows)


class Network(nn.Module):
    """(variables, windows, 96) to (members, variables, windows, 192), all standardised; members share their inputs.

    A teacher (`sees_future`) is also given (#members, variables, windows, 192).
    """

    def __init__(
        self, members: int, width: int, dropout: float, *, mixes: bool = False, sees_future: bool = False
    ) -> None:
        super().__init__()
        clock = 1 + 2 * HARMONICS
        self.members = members
        self.straight = MemberLinear(members, LOOKBACK, LONGEST)
        self.variable = MemberLinear(members, LOOKBACK, width)
        self.others = MemberLinear(members, LOOKBACK, width) if mixes else None
        self.future = MemberLinear(members, LONGEST, width) if sees_future else None
        self.out = MemberLinear(members, width, LONGEST)
        self.mixture = nn.Parameter(torch.zeros(members, VARIABLES, VARIABLES)) if mixes else None
        # Each variable's own day, in the hidden layer and in the forecast.
        self.day_inside = nn.Parameter(torch.zeros(members, VARIABLES, clock, width))
        self.day_outside = nn.Parameter(torch.zeros(members, VARIABLES, clock, LONGEST))
        self.dropout = MemberDropout(members, dropout)

    def forward(self, past: Tensor, clock: Tensor, future: Tensor | None = None) -> Tensor:
        """Forecast; `clock` holds the features of the windows' first target steps, (windows, features)."""
        windows = past.shape[1]
        mean = past.mean(dim=-1, keepdim=True)
        deviation = past.std(dim=-1, keepdim=True, correction=0) + 1e-5
        x = ((past - mean) / deviation).flatten(0, 1)
        hidden = self.variable(x) + (clock @ self.day_inside).flatten(1, 2)
        if self.others is not None and self.mixture is not None:
            heard = self.others(x).unflatten(1, (VARIABLES, windows)).flatten(2)
            hidden = hidden + (self.mixture @ heard).view(self.members, VARIABLES * windows, -1)
        if self.future is not None and future is not None:
            hidden = hidden + self.future(((future - mean) / deviation).flatten(1, 2))
        hidden = self.dropout(functional.gelu(hidden))
        out = self.straight(x) + self.out(hidden) + (clock @ self.day_outside).flatten(1, 2)
        return out.unflatten(1, (VARIABLES, windows)) * deviation + mean


Batch = Tensor
Loss = Callable[[Network, Batch], Tensor]


def past_of(series: Series, origins: Tensor) -> tuple[Tensor, Tensor]:
    """What a student sees of these windows: (variables, windows, 96) and the clock at their first target steps."""
    return series.values[:, origins[:, None] + torch.arange(-LOOKBACK, 0)], series.clock[origins]


def future_of(series: Series, origins: Tensor) -> Tensor:
    """(variables, windows, 192): what came true. The file goes on for months after the test part."""
    return series.values[:, origins[:, None] + torch.arange(LONGEST)]


def errors_of(
    forecast: Callable[[Tensor], Tensor], series: Series, origins: Tensor, horizon: int
) -> tuple[Tensor, Tensor]:
    """Squared and absolute error of each member and window, (members, windows), means over variables and steps."""
    squared, absolute = [], []
    with torch.no_grad():
        for part in origins.split(256):
            error = (forecast(part) - future_of(series, part))[..., :horizon]
            squared.append(error.square().mean(dim=(1, 3)))
            absolute.append(error.abs().mean(dim=(1, 3)))
    return torch.cat(squared, dim=1), torch.cat(absolute, dim=1)


def weighed_error(error: Tensor) -> Tensor:
    """Mean absolute error of each member, a step weighed by 1 / sqrt(lead): (members, variables, windows, 192)."""
    weights = torch.arange(1, LONGEST + 1, dtype=torch.float32).rsqrt()
    return (error.abs() * (weights / weights.mean())).mean(dim=(1, 2, 3))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's global random state set from `seed`; restore the caller's state afterwards."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        yield


def train(
    network: Network,
    loss: Loss,
    forecast: Callable[[Network, Tensor], Tensor],
    series: Series,
    settings: Settings,
    *,
    seed: int,
) -> tuple[dict[int, dict[str, Tensor]], np.ndarray]:
    """AdamW with a cosine; for each horizon, the weights of each member's best epoch on validation, by MSE + MAE.

    Returns these weights by horizon, and the best epochs' (horizons, members, [MSE, MAE]).
    """
    train_origins = origins_of(series.rows["train"], LONGEST)
    held_out = origins_of(series.rows["validation"], LONGEST)[:: settings.validation_stride]
    an_epoch = min(settings.windows_an_epoch, len(train_origins))
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    steps = settings.epochs * math.ceil(an_epoch / settings.batch_windows)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    best = {h: {k: v.detach().clone() for k, v in network.named_parameters()} for h in HORIZONS}
    figures = np.full((len(HORIZONS), network.members, 2), np.inf)
    with _seeded(seed):
        for epoch in range(settings.epochs):
            network.train()
            network.dropout.restart(epoch, torch.device("cpu"))
            for batch in train_origins[torch.randperm(len(train_origins))[:an_epoch]].split(settings.batch_windows):
                optimiser.zero_grad(set_to_none=True)
                # Half precision only in the products: a third less time, the same figures.
                with torch.autocast("cpu", torch.bfloat16):
                    losses = loss(network, batch)
                losses.sum().backward()
                optimiser.step()
                schedule.step()
            network.eval()
            _keep_best(network, best, figures, _validate(lambda part: forecast(network, part), series, held_out))
    return best, figures


def _validate(forecast: Callable[[Tensor], Tensor], series: Series, origins: Tensor) -> np.ndarray:
    """(horizons, members, [MSE, MAE]) in one pass over the windows."""
    total: Tensor | float = 0.0
    with torch.no_grad():
        for part in origins.split(256):
            error = forecast(part) - future_of(series, part)
            total = total + torch.stack([error.square().mean(1).sum(1), error.abs().mean(1).sum(1)], dim=-1)
    assert isinstance(total, Tensor)
    return np.array([(total[:, :h].mean(dim=1) / len(origins)).numpy() for h in HORIZONS])


def _keep_best(
    network: Network, best: dict[int, dict[str, Tensor]], figures: np.ndarray, validated: np.ndarray
) -> None:
    for place, horizon in enumerate(HORIZONS):
        better = validated[place].sum(axis=-1) < figures[place].sum(axis=-1)
        figures[place][better] = validated[place][better]
        chosen = torch.from_numpy(better)
        for name, value in network.named_parameters():
            mask = chosen.view(-1, *[1] * (value.dim() - 1))
            best[horizon][name] = torch.where(mask, value.detach(), best[horizon][name])


class Privilege:
    """What each teacher sees of the future, member by member: kinds in the order of TEACHERS, `teachers` of each."""

    def __init__(self, series: Series, settings: Settings) -> None:
        self.series, self.settings = series, settings
        # The placebo is another window's future, of the same part: it says nothing of the window's own.
        self.shown = torch.arange(series.values.shape[1])
        for rows in series.rows.values():
            origins = origins_of(rows, LONGEST)
            self.shown[origins] = shuffle_windows(origins, seed=0)

    def __call__(self, origins: Tensor) -> Tensor:
        """(members, variables, windows, 192), with fresh noise of σ training standard deviations for each member."""
        true, other = future_of(self.series, origins), future_of(self.series, self.shown[origins])
        shape = (self.settings.teachers, *true.shape)
        noisy = [values + self.settings.sigma * torch.randn(shape) for values in (true, other)]
        return torch.cat([noisy[0], torch.zeros(shape), noisy[1]])


def train_teachers(
    series: Series, settings: Settings, privilege: Privilege, *, seed: int
) -> tuple[Network, dict[int, dict[str, Tensor]], np.ndarray]:
    """All teachers side by side, with the absolute error; see `train`."""
    with _seeded(seed):
        network = Network(
            len(TEACHERS) * settings.teachers,
            settings.width,
            settings.dropout,
            mixes=settings.mixes,
            sees_future=True,
        )

    def forecast(teacher: Network, origins: Tensor) -> Tensor:
        return teacher(*past_of(series, origins), privilege(origins))

    def loss(teacher: Network, batch: Batch) -> Tensor:
        return weighed_error(forecast(teacher, batch) - future_of(series, batch))

    return network, *train(network, loss, forecast, series, settings, seed=seed)


def soft_labels(network: Network, series: Series, privilege: Privilege, origins: Tensor) -> Tensor:
    """(kinds, variables, windows, 192): the mean over each kind's teachers, in half precision to save memory."""
    parts = []
    with torch.no_grad():
        for part in origins.split(256):
            said = network(*past_of(series, part), privilege(part))
            parts.append(said.unflatten(0, (len(TEACHERS), -1)).mean(dim=1).half())
    return torch.cat(parts, dim=2)


def start_students(settings: Settings, *, seed: int, kinds: int = len(STUDENTS)) -> Network:
    """`seeds` students of each kind; those of one seed start from the same weights and drop the same units."""
    with _seeded(seed):
        first = Network(settings.seeds, settings.width, settings.dropout, mixes=settings.mixes)
        students = Network(kinds * settings.seeds, settings.width, settings.dropout, mixes=settings.mixes)
    students.load_state_dict({k: v.repeat(kinds, *[1] * (v.dim() - 1)) for k, v in first.state_dict().items()})
    students.dropout.assign([settings.dropout] * students.members, list(range(settings.seeds)) * kinds)
    return students


def train_students(
    series: Series, settings: Settings, soft: Tensor, alpha: Tensor, taught_by: Tensor, *, seed: int
) -> tuple[Network, dict[int, dict[str, Tensor]], np.ndarray]:
    """All students side by side: α times the error to the teacher, 1 − α times that to the truth.

    soft: (kinds, variables, training windows, 192); alpha, taught_by: of each member, α and which kind teaches it
    """
    network = start_students(settings, seed=seed, kinds=len(alpha) // settings.seeds)
    first = series.rows["train"].start

    def forecast(student: Network, origins: Tensor) -> Tensor:
        return student(*past_of(series, origins))

    def loss(student: Network, batch: Batch) -> Tensor:
        said = forecast(student, batch)
        truth = weighed_error(said - future_of(series, batch))
        taught = weighed_error(said - soft[:, :, batch - first].float()[taught_by])
        return alpha * taught + (1 - alpha) * truth

    return network, *train(network, loss, forecast, series, settings, seed=seed)


def _test_teacher(weights: dict[int, dict[str, Tensor]], series: Series, settings: Settings) -> dict[str, np.ndarray]:
    """All test windows' errors of the privileged ensemble's mean, by horizon."""
    teacher = Network(settings.teachers, settings.width, settings.dropout, mixes=settings.mixes, sees_future=True)
    teacher.eval()

    def forecast(origins: Tensor) -> Tensor:
        future = future_of(series, origins)
        noise = settings.sigma * torch.randn(settings.teachers, *future.shape)
        return teacher(*past_of(series, origins), future + noise).mean(dim=0, keepdim=True)

    measured: dict[str, np.ndarray] = {}
    for horizon in HORIZONS:
        teacher.load_state_dict({name: value[: settings.teachers] for name, value in weights[horizon].items()})
        squared, absolute = errors_of(forecast, series, origins_of(series.rows["test"], horizon), horizon)
        measured |= {f"teacher_mse_{horizon}": squared[0].numpy(), f"teacher_mae_{horizon}": absolute[0].numpy()}
    return measured


def measure(series: Series, settings: Settings) -> dict[str, np.ndarray]:
    """All test windows' errors, by horizon: of the four kinds of student (means over seeds) and of the teacher."""
    privilege = Privilege(series, settings)
    teachers, weights, teachers_validation = train_teachers(series, settings, privilege, seed=0)
    with _seeded(1):
        measured = _test_teacher(weights, series, settings)
        # The labels are those of the longest horizon's weights: its validation looks at all leads.
        teachers.load_state_dict(weights[LONGEST])
        soft = soft_labels(teachers, series, privilege, origins_of(series.rows["train"], LONGEST))
    kinds = torch.arange(len(STUDENTS)).repeat_interleave(settings.seeds)
    alpha = torch.where(kinds == 0, 0.0, settings.alpha)
    students, weights, students_validation = train_students(
        series, settings, soft, alpha, (kinds - 1).clamp(min=0), seed=0
    )
    measured |= {"teachers_validation": teachers_validation, "students_validation": students_validation}
    for horizon in HORIZONS:
        students.load_state_dict(weights[horizon])
        origins = origins_of(series.rows["test"], horizon)
        errors = errors_of(lambda part: students(*past_of(series, part)), series, origins, horizon)
        measured[f"origin_{horizon}"] = origins.numpy()
        for name, of_members in zip(("mse", "mae"), errors, strict=True):
            by_kind = of_members.unflatten(0, (len(STUDENTS), settings.seeds)).double().numpy()
            for kind, of_seeds in zip(STUDENTS, by_kind, strict=True):
                measured[f"{kind}_{name}_{horizon}"] = of_seeds.mean(axis=0)
                measured[f"{kind}_{name}_{horizon}_by_seed"] = of_seeds.mean(axis=1)
    measured["parameters"] = np.array(sum(p.numel() for p in students.parameters()) // students.members)
    return measured
