"""The training loop: early stopping and best weights by member, and a checkpoint that a killed run resumes from.

A run that resumes from a checkpoint ends with the same weights, bit for bit on a CPU, as one that was never
interrupted: optimiser, random states and history are all part of the checkpoint. A training uses random generators of
its own, so that several can run side by side (`tutelage.model.threads`).
"""

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.files import written_whole
from tutelage.model.kinds import Budget
from tutelage.model.layers import MemberDropout
from tutelage.model.memory import keep_freed_memory
from tutelage.model.networks import Forecaster
from tutelage.model.threads import one_thread, stop_if_given_up

Take = Literal["best", "last"] | tuple[int, ...]
"""The weights that a network ends with: those of its epoch with the best validation loss, of its last epoch, or of a
given epoch of each member."""
BatchLoss = Callable[[Forecaster, Int64[Tensor, " batch"]], Float[Tensor, " members"]]
"""(network, origins of a batch) → one loss per member."""


@dataclass
class Progress:
    """The state of a training run; lists by member have one value per member.

    history: one entry per epoch, with the mean training loss and the validation loss of each member
    """

    epoch: int = 0
    best_loss: list[float] = field(default_factory=list)
    best_epoch: list[int] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False


def join_progress(first: Progress, second: Progress) -> Progress:
    """Two finished trainings as one with the members of both; its history ends with the shorter one's."""
    history = [
        {"epoch": row["epoch"]} | {name: row[name] + other[name] for name in ("train", "validation")}
        for row, other in zip(first.history, second.history, strict=False)
    ]
    return Progress(
        epoch=max(first.epoch, second.epoch),
        best_loss=first.best_loss + second.best_loss,
        best_epoch=first.best_epoch + second.best_epoch,
        history=history,
        done=first.done and second.done,
    )


def choose_device(name: str) -> torch.device:
    """The named device; `auto`: CUDA where it is available, else MPS, else the CPU.

    Raises TutelageError where the named device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name not in there or not there[name]():
        raise TutelageError(f"device {name!r} is not available here; use auto, cpu, or a device that torch finds")
    return torch.device(name)


def _autocast(device: torch.device) -> Any:
    """bfloat16 on CUDA; parameters and optimiser stay in float32."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


Generators = dict[str, torch.Generator]
"""Of a training, by type of device: of the CPU, and of the network's device where that is another."""


def _generators(generator: torch.Generator, device: torch.device) -> Generators:
    there = {} if device.type == "cpu" else {device.type: torch.Generator(device).manual_seed(generator.initial_seed())}
    return {"cpu": generator} | there


def save_checkpoint(
    path: Path,
    network: Forecaster,
    best: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    generators: Generators,
    progress: Progress,
) -> None:
    """Write weights, best weights, optimiser and random states as safetensors, with the progress as JSON metadata."""
    tensors = {f"weights.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{k}": v for k, v in state.items()}
    tensors |= {f"random.{k}": v.get_state() for k, v in generators.items()}
    with written_whole(path) as part:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            part,
            metadata={"progress": json.dumps(vars(progress))},
        )


def load_checkpoint(
    path: Path, network: Forecaster, best: dict[str, Tensor], optimiser: torch.optim.Optimizer, generators: Generators
) -> Progress | None:
    """Load a checkpoint into network, best weights, optimiser and random generators; return its progress.

    None, and nothing is changed: there is no such file, or it can't be read, which the log says.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a safe_open is no dict
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        logging.getLogger(__name__).warning("%s can't be read: the training begins anew (%s)", path.name, error)
        return None
    network.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
    best.update({k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")})
    device = next(network.parameters()).device
    for name, value in best.items():
        best[name] = value.to(device)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for name, generator in generators.items():
        if f"random.{name}" in tensors:
            generator.set_state(tensors[f"random.{name}"])
    return progress


def _train_epoch(
    network: Forecaster,
    optimiser: torch.optim.Optimizer,
    loss: BatchLoss,
    origins: Tensor,
    budget: Budget,
    epoch: int,
    generator: torch.Generator,
) -> Tensor:
    """One pass over the windows in random order; the mean loss of each member, on the device."""
    network.train()
    network.dropout.restart(epoch, origins.device)
    order = origins[torch.randperm(len(origins), generator=generator).to(origins.device)]
    total = torch.zeros(network.members, device=origins.device)
    batches = order.split(budget.batch_size)
    for batch in batches:
        stop_if_given_up()
        optimiser.zero_grad(set_to_none=True)
        with _autocast(origins.device):
            losses = loss(network, batch)
        losses.sum().backward()
        optimiser.step()
        total += losses.detach() * len(batch)  # no host sync here: the value is read once an epoch
    return total / len(origins)


def _keep_best(
    network: Forecaster,
    best: dict[str, Tensor],
    progress: Progress,
    validation: list[float],
    patience: int,
    take: Take,
) -> None:
    """Update, member by member, the best weights and losses where the validation loss has improved.

    A member out of patience keeps its best weights, exactly as if trained alone, while others train on. Where epochs
    are given, the weights of a member's epoch are its best ones.
    """
    better = (
        [progress.epoch == epoch for epoch in take]
        if isinstance(take, tuple)
        else [
            loss < best_loss and progress.epoch - epoch <= patience
            for loss, best_loss, epoch in zip(validation, progress.best_loss, progress.best_epoch, strict=True)
        ]
    )
    chosen = torch.tensor(better, device=next(network.parameters()).device)
    for name, value in network.named_parameters():
        best[name] = torch.where(chosen.view(-1, *[1] * (value.dim() - 1)), value.detach(), best[name])
    for member, improved in enumerate(better):
        if improved:
            progress.best_loss[member] = validation[member]
            progress.best_epoch[member] = progress.epoch


def _is_done(progress: Progress, budget: Budget, take: Take) -> bool:
    """Whether the epochs have ended, or no member has improved for as long as the patience lasts."""
    if isinstance(take, tuple):
        return progress.epoch >= max(take)
    waited = progress.epoch - max(progress.best_epoch)
    return waited >= budget.patience or progress.epoch >= budget.epochs


def train_network(
    network: Forecaster,
    loss: BatchLoss,
    origins: Int64[Tensor, " windows"],
    validation_loss: Callable[[Forecaster], Float[Tensor, " members"]],
    budget: Budget,
    *,
    generator: torch.Generator,
    checkpoint: Path | None = None,
    checkpoint_every: int = 5,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    take: Take = "best",
) -> Progress:
    """Train all members until none has improved for `patience` epochs, or the epochs end.

    The network ends with each member's weights of its best epoch, exactly as if trained alone, or with those that
    `take` names; training ends at the last epoch that it names.

    generator: of the CPU, for the order of the windows and, without seeds of the members, for dropout
    checkpoint: the file that the state is written to every `checkpoint_every` epochs and at the end; training resumes
        from a checkpoint found there
    on_epoch: called after each epoch, after its checkpoint was written, and once for a checkpoint found

    Raises TutelageError where a loss is not finite.
    """
    keep_freed_memory()
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=budget.learning_rate, weight_decay=budget.weight_decay, fused=True
    )
    best = {name: value.detach().clone() for name, value in network.named_parameters()}
    progress = Progress(best_loss=[float("inf")] * network.members, best_epoch=[0] * network.members)
    generators = _generators(generator, origins.device)
    for layer in network.modules():  # a coupled teacher's companion has a dropout of its own
        if isinstance(layer, MemberDropout):
            layer.generator = generators[origins.device.type]
    loaded = None if checkpoint is None else load_checkpoint(checkpoint, network, best, optimiser, generators)
    if loaded is not None:
        progress = loaded
        on_epoch(progress)
    with one_thread():
        while not progress.done:
            trained = _train_epoch(network, optimiser, loss, origins, budget, progress.epoch, generator)
            network.eval()
            with torch.no_grad(), _autocast(origins.device):
                validated = validation_loss(network)
            progress.epoch += 1
            train_losses, validation_losses = torch.stack([trained, validated.float()]).tolist()
            if not all(map(torch.isfinite, torch.tensor(train_losses + validation_losses))):
                raise TutelageError(f"training diverged: a loss of epoch {progress.epoch} is not finite")
            _keep_best(network, best, progress, validation_losses, budget.patience, take)
            progress.history.append({"epoch": progress.epoch, "train": train_losses, "validation": validation_losses})
            progress.done = _is_done(progress, budget, take)
            if checkpoint is not None and (progress.done or progress.epoch % checkpoint_every == 0):
                save_checkpoint(checkpoint, network, best, optimiser, generators, progress)
            on_epoch(progress)
    if take != "last":
        network.load_state_dict(network.state_dict() | best)
    network.eval()
    return progress
