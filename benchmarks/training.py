"""How fast students train, side by side and one by one: `make bench-training`.

Windows a second (members × windows) of a 168→128→128→24 × 32 bins network at batch 128, on random data.
Prints its table and writes benchmarks/results/training.json (training-<chip>.json on a GPU), with the machine that
gave the figures.
"""

import platform
import time
from pathlib import Path

import torch
from torch import Tensor

from tutelage.distil.losses import hard_label_loss
from tutelage.files import write_json
from tutelage.model.architectures import NetworkConfig
from tutelage.model.kinds import Budget
from tutelage.model.networks import Forecaster
from tutelage.model.scaling import Scaler, Scalers
from tutelage.model.training import choose_device, seeded, train_network

RESULTS = Path(__file__).parent / "results"
CONFIG = NetworkConfig(lookback=168, horizon=24, observed=1, known=3, privileged=0, bins=32, width=128, dropout=0.2)
HOURS = 2400
WINDOWS = HOURS - CONFIG.lookback - CONFIG.horizon
EPOCHS = 3
ROUNDS = 3


def _scalers() -> Scalers:
    column = Scaler((0.0,), (1.0,))
    return Scalers(observed=column, known=Scaler((0.0,) * 3, (1.0,) * 3), auxiliary=column, minutes=column)


def windows_per_second(members: int, device: torch.device) -> float:
    """Member-windows a second of one training, the best of some rounds."""
    with seeded(0, device):
        values, known = torch.randn(HOURS, 1, device=device), torch.rand(HOURS, 3, device=device)
        labels = torch.randint(CONFIG.bins, (HOURS, CONFIG.horizon), device=device)
        origins = torch.arange(CONFIG.lookback, CONFIG.lookback + WINDOWS, device=device)
        past, ahead = torch.arange(-CONFIG.lookback, 0, device=device), torch.arange(CONFIG.horizon, device=device)

        def loss(network: Forecaster, batch: Tensor) -> Tensor:
            logits = network(values[batch[:, None] + past], known[batch[:, None] + ahead])
            return hard_label_loss(logits, labels[batch])

        seconds = []
        for _ in range(ROUNDS):
            network = Forecaster(CONFIG, _scalers(), members).to(device)
            begun = time.perf_counter()
            budget = Budget(epochs=EPOCHS, patience=EPOCHS)
            train_network(network, loss, origins, lambda network: loss(network, origins[:1]), budget)
            seconds.append(time.perf_counter() - begun)
    return members * WINDOWS * EPOCHS / min(seconds)


def main() -> None:
    """Print the table and write it."""
    device = choose_device("auto")
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    single = windows_per_second(1, device)
    rows = []
    print(f"{chip}, torch {torch.__version__}\n{'members':>8}{'windows/s':>12}{'× one by one':>14}")
    for members in (1, 2, 8, 16, 32):
        speed = single if members == 1 else windows_per_second(members, device)
        rows.append({"members": members, "windows_per_second": round(speed), "ratio": round(speed / single, 2)})
        print(f"{members:>8}{speed:>12,.0f}{speed / single:>14.2f}")
    content = {"chip": chip, "machine": platform.machine(), "torch": torch.__version__, "rows": rows}
    name = f"training-{chip.lower().replace(' ', '-')}.json" if device.type == "cuda" else "training.json"
    write_json(RESULTS / name, content)


if __name__ == "__main__":
    main()
