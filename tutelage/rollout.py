"""A student of one step, rolled out on its own forecasts, and taught along the way so that errors don't build up.

Trained on the next hour alone, a one-step forecaster has never seen what it makes of its own errors. Here the roll-out
itself is matched with a teacher's path, and the gradient goes back through all of its steps. What is known ahead, such
as the calendar, is known along the roll-out, too. Its twin is the same with α = 0.

Source: Venkatraman et al. 2015, Improving Multi-Step Prediction of Learned Time Series Models; the gradient through the
roll-out as in Bengio et al. 2015, arXiv:1506.03099, section 2.4, which leaves it out.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tutelage.distillation import Task
from tutelage.fit import Progress, fit, seeded
from tutelage.lessons import Measure, make_measure, path_of, truth_loss
from tutelage.losses import roll_out, roll_out_loss
from tutelage.networks import Forecaster
from tutelage.recipe import Recipe

Step = Callable[[Float[Tensor, "1 batch lookback"]], Float[Tensor, "1 batch"]]


def _measure(task: Task, network: Forecaster) -> Measure:
    return make_measure(network.shape.head, task.edges(), task.scale(), horizon=1, decay=1.0)


def _stepper(network: Forecaster, task: Task, origins: Tensor) -> tuple[Step, Float[Tensor, "1 batch lookback"]]:
    """A function from a standardised past to the next hour's standardised mean, and the past to begin with.

    Each call is one hour later than the one before: it is used for one roll-out.
    """
    observed, known = task.student_inputs(origins)
    measure, (mean, std) = _measure(task, network), task.scale()
    ahead = iter(known.unbind(dim=1))

    def step(past: Tensor) -> Tensor:
        outputs = network(past[0].unsqueeze(-1) * std + mean, next(ahead).unsqueeze(1))
        return path_of(measure, outputs).squeeze(-1)

    return step, ((observed.squeeze(-1) - mean) / std).unsqueeze(0)


def train_rolled(
    task: Task,
    target: Float[Tensor, "train horizon"],
    recipe: Recipe,
    *,
    alpha: float,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Forecaster, Progress]:
    """Train one forecaster of the next hour by α · roll-out loss + (1 − α) · loss of its head on the next hour.

    `target` is the path to match along the roll-out, for each window of `task.train` and in the target's unit: a
    teacher's mean (`heads.mean_of` its soft labels), or the truth. Student and twin (α = 0) of one seed have the same
    first weights and batches, and both stop by the squared error of their roll-out on the validation part's truth.

    Raises ValueError where other columns than the target are observed: nobody forecasts these along the way.
    """
    if task.panel.observed.shape[1] != 1:
        raise ValueError(
            f"a roll-out forecasts its own input, and {task.panel.observed.shape[1] - 1} columns are beside it"
        )
    device = task.panel.observed.device
    shape = replace(task.shape(recipe, teacher=False), horizon=1)
    with seeded(seed, device):
        network = Forecaster(shape, task.scalers, 1).to(device)
    network.dropout.assign([shape.dropout], [seed])
    measure, (mean, std) = _measure(task, network), task.scale()
    row_of = torch.full((len(task.panel.hour),), -1, dtype=torch.int64, device=device)
    row_of[task.train] = torch.arange(len(task.train), device=device)

    def loss(learner: Forecaster, batch: Tensor) -> Tensor:
        total = torch.zeros(1, device=device)
        if alpha < 1:
            observed, known = task.student_inputs(batch)
            total = total + (1 - alpha) * truth_loss(
                measure, learner(observed, known[:, :1]), task.truth(batch)[:, :1].contiguous()
            )
        if alpha > 0:
            step, past = _stepper(learner, task, batch)
            total = total + alpha * roll_out_loss(step, past, ((target[row_of[batch]] - mean) / std).unsqueeze(0))
        return total

    def validation_loss(learner: Forecaster) -> Tensor:
        error = (forecast_rolled(learner, task, task.validation) - task.truth(task.validation)) / std
        return error.square().mean().unsqueeze(0)

    with seeded(seed, device):
        progress = fit(
            network,
            loss,
            task.train,
            validation_loss,
            recipe.student_budget,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
        )
    return network, progress


@torch.no_grad()
def forecast_rolled(
    network: Forecaster, task: Task, origins: Int64[Tensor, " windows"], *, chunk: int = 1024
) -> Float[Tensor, "windows horizon"]:
    """The mean of each hour ahead, in the target's unit, from a forecaster of the next hour alone."""
    mean, std = task.scale()
    paths = [roll_out(*_stepper(network, task, some), task.horizon)[0] for some in origins.split(chunk)]
    return torch.cat(paths) * std + mean


def error_growth(network: Forecaster, task: Task, origins: Int64[Tensor, " windows"]) -> Float[Tensor, " horizon"]:
    """RMSE of the roll-out by lead time, in the target's unit: how errors build up."""
    return (forecast_rolled(network, task, origins) - task.truth(origins)).square().mean(dim=0).sqrt()
