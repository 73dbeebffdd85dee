"""How fast students train, side by side and one by one: `make bench-training`.

Windows a second (members × windows) of a 168→128→128→24 × 32 bins network at batch 128, on random data.
Prints its table and writes benchmarks/results/training.json, with the machine that gave the figures.
"""

import json
import platform
import time
from pathlib import Path

import torch
from torch import Tensor

from tutelage.fit import choose_device, fit, seeded
from tutelage.losses import hard_label_loss
from tutelage.networks import Forecaster, Scaler, Scalers, Shape
from tutelage.recipe import Budget

RESULTS = Path(__file__).parent / "results" / "training.json"
SHAPE = Shape(lookback=168, horizon=24, observed=1, known=3, privileged=0, bins=32, width=128, dropout=0.2)
HOURS = 2400
WINDOWS = HOURS - SHAPE.lookback - SHAPE.horizon
EPOCHS = 3
ROUNDS = 3


def _scalers() -> Scalers:
    one, three = Scaler((0.0,), (1.0,)), Scaler((0.0,) * 3, (1.0,) * 3)
    return Scalers(observed=one, known=three, auxiliary=one, minutes=one)


def windows_per_second(members: int, device: torch.device) -> float:
    """Member-windows a second of one training, the best of some rounds."""
    with seeded(0, device):
        values, known = torch.randn(HOURS, 1, device=device), torch.rand(HOURS, 3, device=device)
        labels = torch.randint(SHAPE.bins, (HOURS, SHAPE.horizon), device=device)
        origins = torch.arange(SHAPE.lookback, SHAPE.lookback + WINDOWS, device=device)
        past, ahead = torch.arange(-SHAPE.lookback, 0, device=device), torch.arange(SHAPE.horizon, device=device)

        def loss(network: Forecaster, batch: Tensor) -> Tensor:
            logits = network(values[batch[:, None] + past], known[batch[:, None] + ahead])
            return hard_label_loss(logits, labels[batch])

        seconds = []
        for _ in range(ROUNDS):
            network = Forecaster(SHAPE, _scalers(), members).to(device)
            begun = time.perf_counter()
            budget = Budget(epochs=EPOCHS, patience=EPOCHS)
            fit(network, loss, origins, lambda network: loss(network, origins[:1]), budget)
            seconds.append(time.perf_counter() - begun)
    return members * WINDOWS * EPOCHS / min(seconds)


def main() -> None:
    """Print the table and write it."""
    device = choose_device("auto")
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    alone = windows_per_second(1, device)
    rows = []
    print(f"{chip}, torch {torch.__version__}\n{'members':>8}{'windows/s':>12}{'× one by one':>14}")
    for members in (1, 2, 8, 16, 32):
        speed = alone if members == 1 else windows_per_second(members, device)
        rows.append({"members": members, "windows_per_second": round(speed), "ratio": round(speed / alone, 2)})
        print(f"{members:>8}{speed:>12,.0f}{speed / alone:>14.2f}")
    content = {"chip": chip, "machine": platform.machine(), "torch": torch.__version__, "rows": rows}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
