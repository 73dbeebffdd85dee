"""How fast students train: `make bench-training`.

Random data, a network 168→128→128→24 × 32 outputs, windows a second (members × windows). Three tables, all of rounds
that alternate what they compare, each figure the best of its rounds:

- next to NeuralForecast: the same batch sizes, no dropout on either side; its MLP reads the past alone, this network
  144 calendar inputs more. NeuralForecast's loss is pinball on 32 quantiles, this one's cross-entropy on 32 bins.
- many networks side by side against one by one, with the default's dropout. On a CPU a training takes one thread, and
  trainings that don't wait for each other, as those of a retrain's blocks, one core each: `on all cores` trains as many
  networks in as many trainings as there are threads.
- the share of what this machine's matrix products reach, by the operations that the layers' products need.

Writes benchmarks/results/training.json (training-<chip>.json on a GPU), with the machine that gave the figures.
"""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tutelage.distil.losses import hard_label_loss
from tutelage.files import write_json
from tutelage.model.architectures import NetworkConfig
from tutelage.model.kinds import Budget
from tutelage.model.networks import CALENDAR_ENCODED, Forecaster
from tutelage.model.scaling import Scaler, Scalers
from tutelage.model.threads import side_by_side
from tutelage.model.training import choose_device, train_network

RESULTS = Path(__file__).parent / "results"
PEER = (".venv-peers/bin/python", str(Path(__file__).with_name("training_peer.py")))
CONFIG = NetworkConfig(lookback=168, horizon=24, observed=1, known=3, privileged=0, bins=32, width=128, dropout=0.2)
HOURS = 2400
WINDOWS = HOURS - CONFIG.lookback - CONFIG.horizon
TRAINED = 100_000
"""Windows of one training, over all members; some seconds."""
ROUNDS = 5
BATCHES = (64, 256, 1024)
MEMBERS = (1, 2, 8, 16, 32)
TOGETHER = 16
PASSES = 3
"""Products per layer and step: forward, and backward to the weights and to the inputs."""


def _scalers() -> Scalers:
    column = Scaler((0.0,), (1.0,))
    return Scalers(observed=column, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=column, minutes=column)


def _training(members: int, device: torch.device, *, batch_size: int, config: NetworkConfig) -> Callable[[], int]:
    """A training of about TRAINED windows, which returns how many windows its members have seen."""
    values, known = torch.randn(HOURS, 1, device=device), torch.rand(HOURS, 3, device=device)
    labels = torch.randint(config.bins, (HOURS, config.horizon), device=device)
    origins = torch.arange(config.lookback, config.lookback + WINDOWS, device=device)
    past, ahead = torch.arange(-config.lookback, 0, device=device), torch.arange(config.horizon, device=device)

    def loss(network: Forecaster, batch: Tensor) -> Tensor:
        logits = network(values[batch[:, None] + past], known[batch[:, None] + ahead])
        return hard_label_loss(logits, labels[batch])

    network = Forecaster(config, _scalers(), members).to(device)
    epochs = max(2, TRAINED // (WINDOWS * members))
    budget = Budget(epochs=epochs, patience=200, batch_size=batch_size)

    def train() -> int:
        one_window = origins[:1]
        train_network(
            network, loss, origins, lambda network: loss(network, one_window), budget, generator=torch.Generator()
        )
        return members * WINDOWS * epochs

    return train


def windows_per_second(
    members: int, device: torch.device, *, batch_size: int, config: NetworkConfig, trainings: int = 1
) -> float:
    """Member-windows a second of this number of members, parted over trainings side by side."""
    every = [_training(members // trainings, device, batch_size=batch_size, config=config) for _ in range(trainings)]
    begun = time.perf_counter()
    windows = side_by_side(lambda train: train(), every, device)
    return sum(windows) / (time.perf_counter() - begun)


def _peer(batch_size: int) -> float:
    given = (batch_size, TRAINED // batch_size, HOURS, CONFIG.bins, CONFIG.width)
    # With the setting that this package gives its own threads, the peer would be half as fast.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([*PEER, *map(str, given)], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def best_of_rounds(runs: Sequence[Callable[[], float]]) -> list[float]:
    """The best figure of each, the rounds alternating between them."""
    return [max(figures) for figures in zip(*([run() for run in runs] for _ in range(ROUNDS)), strict=True)]


def operations_per_window(config: NetworkConfig) -> int:
    """Multiplications and additions that training takes for a window in the layers' products.

    The first layer's inputs need no gradient.
    """
    inputs = config.lookback * config.observed + config.horizon * CALENDAR_ENCODED
    first, rest = inputs * config.width, config.width * (config.width + config.horizon * config.bins)
    return 2 * ((PASSES - 1) * first + PASSES * rest)


def operations_per_second(device: torch.device) -> float:
    """What a product of two large matrices reaches, the best of some."""
    a, b = torch.randn(2, 2048, 2048, device=device)
    seconds = []
    for _ in range(10):
        begun = time.perf_counter()
        _ = (a @ b).sum().item()  # waits for the result on a GPU
        seconds.append(time.perf_counter() - begun)
    return 2 * len(a) ** 3 / min(seconds)


def main() -> None:
    """Print the tables and write them."""
    device = choose_device("auto")
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    limit = operations_per_second(device)
    print(f"{chip}, torch {torch.__version__}; matrix products: {limit / 1e9:,.0f} GFLOPS\n")
    content = {"chip": chip, "machine": platform.machine(), "torch": torch.__version__, "windows": TRAINED}
    content |= {"matmul_gflops": round(limit / 1e9), "neuralforecast": _next_to_peer(device)}
    content |= {"rows": _side_by_side(device, limit)}
    name = f"training-{chip.lower().replace(' ', '-')}.json" if device.type == "cuda" else "training.json"
    write_json(RESULTS / name, content)


def _next_to_peer(device: torch.device) -> list[dict[str, float]]:
    """By batch size: the peer, one network, and many together."""
    if not Path(PEER[0]).exists():
        print("NeuralForecast is not installed: make .venv-peers/installed")
        return []
    plain, rows, cores = replace(CONFIG, dropout=0.0), [], _cores(device)
    heads = "".join(f"{name:>14}{'ratio':>8}" for name in ("one", f"{TOGETHER} together", "on all cores"))
    print(f"{'batch':>8}{'NeuralForecast':>16}{heads}")
    for size in BATCHES:
        of_members = partial(windows_per_second, device=device, batch_size=size, config=plain)
        ours = partial(of_members, 1), partial(of_members, TOGETHER), partial(of_members, TOGETHER, trainings=cores)
        peer, single, together, parted = best_of_rounds([partial(_peer, size), *ours])
        rows.append(
            {
                "batch": size,
                "neuralforecast": round(peer),
                "one_by_one": round(single),
                "side_by_side": round(together),
                "on_all_cores": round(parted),
                "ratio": round(single / peer, 2),
                "ratio_side_by_side": round(together / peer, 2),
                "ratio_on_all_cores": round(parted / peer, 2),
            }
        )
        shown = "".join(f"{each:>14,.0f}{each / peer:>8.2f}" for each in (single, together, parted))
        print(f"{size:>8}{peer:>16,.0f}{shown}")
    return rows


def _cores(device: torch.device) -> int:
    """How many trainings `side_by_side` has at work at once."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def _side_by_side(device: torch.device, limit: float) -> list[dict[str, float]]:
    """By number of members: the speed next to one by one, and its share of the limit, in operations a second."""
    rows, cores = [], _cores(device)
    print(f"\n{'members':>8}{'trainings':>11}{'windows/s':>12}{'× one by one':>14}{'of the limit':>14}")
    of_members = partial(windows_per_second, device=device, batch_size=Budget().batch_size, config=CONFIG)
    tried = [(members, 1) for members in MEMBERS] + [(members, cores) for members in MEMBERS if 1 < cores <= members]
    speeds = best_of_rounds([partial(of_members, members, trainings=trainings) for members, trainings in tried])
    for (members, trainings), speed in zip(tried, speeds, strict=True):
        share = speed * operations_per_window(CONFIG) / limit
        rows.append(
            {
                "members": members,
                "trainings": trainings,
                "windows_per_second": round(speed),
                "ratio": round(speed / speeds[0], 2),
                "share_of_matmul_limit": round(share, 3),
            }
        )
        print(f"{members:>8}{trainings:>11}{speed:>12,.0f}{speed / speeds[0]:>14.2f}{share:>14.0%}")
    return rows


if __name__ == "__main__":
    main()
