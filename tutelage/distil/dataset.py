"""The windows that teachers and students learn from, with the scalers and bins of the training part."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.data.grid import HOUR, Grid
from tutelage.data.windows import (
    Panel,
    Parts,
    Span,
    gather_future,
    gather_long_past,
    gather_past,
    thinned,
    window_origins,
)
from tutelage.distil.recipe import Recipe
from tutelage.distil.terms import SHORTEST_HORIZON
from tutelage.distil.views import privileged_values, privileged_width, shuffle_windows
from tutelage.errors import GapsError, SpecError
from tutelage.model.architectures import NetworkConfig
from tutelage.model.heads import Bins, bin_index, fit_bins
from tutelage.model.scaling import Scalers, fit_scalers

NO_STEP = torch.iinfo(torch.int64).min
MOST_WINDOWS = 8000
"""Of several series. Five hundred series of a year have four million windows, and most of them say the same."""


def _no_origins() -> Int64[Tensor, " none"]:
    return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Fitted:
    """Scalers and bins, fitted only on the steps of the training part."""

    scalers: Scalers
    bins: Bins


def fit_on(panel: Panel, train: Span, *, bins: int) -> Fitted:
    """Fit scalers, and at most `bins` quantile bins of the target, on the steps of a span.

    Raises DataError where the target takes too few values for bins.
    """
    steps = train.steps(panel.grid)
    inside = (panel.step >= steps.start) & (panel.step < steps.stop)
    return Fitted(fit_scalers(panel, train), fit_bins(panel.observed[inside, 0].cpu().numpy(), bins))


@dataclass(frozen=True)
class WindowDataset:
    """Windows of a panel in parts, with the scalers and bins of the training part.

    lookback, horizon: steps; train, validation, test: origins of windows
    unlabelled: origins of further windows of the training part whose target is missing for one step or more; students
        learn these steps only from soft labels
    transfer: origins of windows of other sites: see `tutelage.distil.sites`
    first_step: where the history begins, the number of a step: no window sees what is before
    """

    panel: Panel
    lookback: int
    horizon: int
    train: Int64[Tensor, " train"]
    validation: Int64[Tensor, " validation"]
    scalers: Scalers
    bins: Bins
    test: Int64[Tensor, " test"] = field(default_factory=_no_origins)
    unlabelled: Int64[Tensor, " unlabelled"] = field(default_factory=_no_origins)
    transfer: Int64[Tensor, " transfer"] = field(default_factory=_no_origins)
    first_step: int = 0

    @property
    def horizon_hours(self) -> int:
        """The horizon in hours."""
        return round(self.horizon * self.panel.grid.hours)

    def whole(self) -> "WindowDataset":
        """The same windows with those of the validation part as part of the training part."""
        return replace(self, train=torch.cat([self.train, self.validation]))

    def blocks(self, number: int) -> "list[WindowDataset]":
        """For each of `number` blocks of time: the block as validation part, and the other windows for training.

        The blocks have equally many issue times of the training and the validation part. Windows for training share
        no target step with the block, those of other sites neither: what many sites have in common, such as the
        weather of these days, is not known when a forecast is issued.

        Raises GapsError where a block leaves no windows for training.
        """
        step, origins = self.panel.step, torch.cat([self.train, self.validation])
        datasets = []
        for block in step[origins].unique().tensor_split(number):

            def parted(windows: Tensor, block: Tensor = block) -> tuple[Tensor, Tensor]:
                """The windows inside the block, and those apart from it."""
                first, last, issued = block[0], block[-1], step[windows]
                apart = (issued <= first - self.horizon) | (issued >= last + self.horizon)
                return windows[(issued >= first) & (issued <= last)], windows[apart]

            if not len(block) or not len(parted(origins)[1]):
                raise GapsError(f"{len(origins)} windows are too few for {number} blocks that share no target step")
            inside, apart = parted(origins)
            unlabelled, transfer = parted(self.unlabelled)[1], parted(self.transfer)[1]
            datasets.append(replace(self, train=apart, validation=inside, unlabelled=unlabelled, transfer=transfer))
        return datasets

    def taught(self) -> Int64[Tensor, " taught"]:
        """Origins of the windows that students learn from.

        Those of the training part, those without a target, and those of other sites.
        """
        return torch.cat([self.train, *(part.to(self.train.device) for part in (self.unlabelled, self.transfer))])

    def alone(self) -> "WindowDataset":
        """The same windows without those of other sites."""
        return replace(self, transfer=self.transfer[:0])

    def shortened(self, horizon: int) -> "WindowDataset":
        """The same windows with a shorter horizon, in steps."""
        return replace(self, horizon=horizon)

    def edges(self) -> Float[Tensor, " edges"]:
        """The bins' edges, on the panel's device."""
        return torch.tensor(self.bins.edges).to(self.panel.observed.device, non_blocking=True)

    def student_inputs(self, origins: Tensor) -> tuple[Tensor, Tensor]:
        """The student's inputs: the observed past and the known future."""
        return (
            gather_past(self.panel.seen, origins, self.lookback),
            gather_future(self.panel.known, origins, self.horizon),
        )

    def long_past(
        self, origins: Tensor, lookback: int, *, complete: int | None = None
    ) -> Float[Tensor, "windows lookback observed"]:
        """The observed values of any number of past steps; NaN where there is none.

        A window of another site sees what is before this site's history.

        complete: number of the last steps whose gaps are filled; None: the lookback
        """
        complete = min(self.lookback if complete is None else complete, lookback)

        def past(first_step: int) -> Tensor:
            return gather_long_past(self.panel, origins, lookback, first_step=first_step, complete=complete)

        of_others = torch.isin(origins, self.transfer.to(origins.device))
        if not of_others.any():
            return past(self.first_step)
        return torch.where(of_others[:, None, None], past(NO_STEP), past(self.first_step))

    def fitted_on(self) -> Int64[Tensor, " windows"]:
        """Origins of the windows that simple forecasts are fitted on: the training part, and those of other sites."""
        return torch.cat([self.train, self.transfer.to(self.train.device)])

    def truth(self, origins: Tensor) -> Float[Tensor, "windows horizon"]:
        """The actual values of the horizon, in the target's unit."""
        return gather_future(self.panel.observed[:, :1], origins, self.horizon).squeeze(-1)

    def labels(self, origins: Tensor) -> Int64[Tensor, "windows horizon"]:
        """The bins of the actual values."""
        return bin_index(self.truth(origins), self.edges())

    def scale(self) -> Float[Tensor, " 2"]:
        """The target's mean and standard deviation, on the panel's device."""
        target = self.scalers.observed
        return torch.tensor([target.mean[0], target.std[0]], device=self.panel.observed.device)

    def student_config(self, recipe: Recipe) -> NetworkConfig:
        """The config of student and twin.

        Raises SpecError where a recursive student would need forecasts of columns other than the target.
        """
        student, observed = recipe.student, self.panel.observed.shape[1]
        require_recursive_columns(recipe, observed)
        categorical = student.head == "categorical"
        return NetworkConfig(
            lookback=self.lookback,
            horizon=self.horizon,
            observed=observed,
            known=self.panel.known.shape[1],
            privileged=0,
            bins=len(self.bins),
            width=student.width,
            dropout=student.training.dropout,
            architecture=student.architecture,
            head=student.head,
            recursive=student.recursive,
            centres=self._centres() if student.recursive and categorical else (),
        )

    def teacher_config(self, recipe: Recipe) -> NetworkConfig:
        """The config of a teacher network, with the recipe's first view.

        Raises ValueError where the recipe's teacher is not a network.
        """
        teacher = recipe.teacher
        if teacher.kind == "boosted":
            raise ValueError("boosted trees are not a network: tutelage.distil.boosted trains them")
        return NetworkConfig(
            lookback=self.lookback,
            horizon=self.horizon,
            observed=self.panel.observed.shape[1],
            known=self.panel.known.shape[1],
            privileged=privileged_width(self.panel, teacher.views, lookback=self.lookback, horizon=self.horizon),
            bins=len(self.bins),
            width=teacher.width,
            dropout=teacher.training.dropout,
            architecture=teacher.kind,
        )

    def _centres(self) -> tuple[float, ...]:
        """The bins' means, standardised."""
        mean, std = self.scalers.observed.mean[0], self.scalers.observed.std[0]
        return tuple(((low + high) / 2 - mean) / std for low, high in itertools.pairwise(self.bins.edges))

    def teacher_inputs(
        self,
        origins: Tensor,
        recipe: Recipe,
        generator: torch.Generator,
        *,
        shown: Int64[Tensor, " steps"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's inputs: the student's inputs and the privileged values.

        Each call draws new noise on the future from `generator`. `shown` (see `privileged_origins`) gives, for each
        origin, the window whose privileged values the teacher sees.
        """
        privileged = privileged_values(
            self.panel,
            origins if shown is None else shown[origins],
            recipe.teacher.views,
            self.scalers,
            lookback=self.lookback,
            horizon=self.horizon,
            generator=generator,
        )
        return *self.student_inputs(origins), privileged

    def privileged_origins(
        self, recipe: Recipe, parts: Sequence[Tensor], *, seed: int
    ) -> Int64[Tensor, " steps"] | None:
        """For each origin in these parts, the window whose privileged values the teacher sees; None: its own.

        Only a placebo teacher sees those of other windows, shuffled within each part by the seed.
        """
        if not recipe.teacher.views.placebo:
            return None
        shown = torch.full((len(self.panel.step),), -1, dtype=torch.int64, device=self.panel.step.device)
        for origins in parts:
            shown[origins] = shuffle_windows(origins, seed=seed)
        return shown


def make_dataset(
    panel: Panel, parts: Parts, fitted: Fitted, *, lookback: int, horizon: int, unlabelled: bool = False
) -> WindowDataset:
    """The windows of a panel's parts, on the panel's device; of several series at most MOST_WINDOWS in a part.

    lookback, horizon: steps
    unlabelled: whether to include windows of the training part whose target is missing
    """

    def origins(span: Span, *, labelled: bool = True, most: int = MOST_WINDOWS) -> Tensor:
        rows = window_origins(
            panel, span, lookback=lookback, horizon=horizon, start=parts.train.start, labelled=labelled
        )
        return (rows if panel.sizes is None else thinned(panel, rows, most)).to(panel.step.device)

    return WindowDataset(
        panel=panel,
        lookback=lookback,
        horizon=horizon,
        train=origins(parts.train),
        validation=origins(parts.validation, most=MOST_WINDOWS // 4),
        test=origins(parts.test),
        scalers=fitted.scalers,
        bins=fitted.bins,
        unlabelled=origins(parts.train, labelled=False) if unlabelled else _no_origins().to(panel.step.device),
        first_step=parts.train.steps(panel.grid).start,
    )


def require_steps(recipe: Recipe, grid: Grid, *, horizon_hours: int, lookback_hours: int = 0) -> None:
    """Raise SpecError where a recipe, a horizon or a lookback asks for what steps of this length can't give."""
    horizon = grid.steps(horizon_hours, called="horizon_hours")
    grid.steps(lookback_hours, called="lookback_hours")
    model = recipe.student.pretrained or recipe.teacher.pretrained
    if model is not None and grid.step != HOUR:
        raise SpecError(f"recipe: {model} forecasts hours, and student_step is {grid.name}; leave `pretrained` empty")
    for hours in recipe.teacher.horizons:
        grid.steps(hours, called="recipe.teacher.horizons")
    for views in recipe.teacher.every_view:
        grid.steps(views.relative_hours or 0, called="recipe.teacher.views.relative_hours")
    for name, least in SHORTEST_HORIZON.items():
        if getattr(recipe.distillation.terms, name) and horizon < least:
            raise SpecError(
                f"recipe.distillation.terms.{name}: it needs a horizon of {least} student_steps or more, not {horizon}"
            )


def require_recursive_columns(recipe: Recipe, observed: int) -> None:
    """Raise SpecError where a recursive student would need forecasts of observed columns other than the target."""
    if recipe.student.recursive and observed > 1:
        raise SpecError(
            f"recipe.student.recursive: a recursive student forecasts only the target, but the dataset has "
            f"{observed - 1} more observed columns"
        )
