"""Windows a second of NeuralForecast's MLP, in the environment `.venv-peers`; `benchmarks.training` calls it.

    .venv-peers/bin/python benchmarks/training_peer.py BATCH STEPS HOURS BINS WIDTH

One series of HOURS random values, a week in, a day out, two hidden layers of WIDTH units, BINS outputs an hour by the
multi-quantile loss (Challu et al. 2023 and others, neuralforecast). The clock runs from the step after WARM_UP to the
end, so that neither Lightning's start nor the table's reading counts.
"""

import logging
import os
import sys
import time
import warnings
from typing import Any

WARM_UP = 20


def windows_per_second(batch: int, steps: int, hours: int, bins: int, width: int) -> float:
    """Train once; the windows a second of all steps but the first."""
    import numpy as np
    import pandas as pd
    import pytorch_lightning as lightning
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MQLoss
    from neuralforecast.models import MLP

    clock: dict[str, float] = {}  # not an attribute of the callback, of which NeuralForecast trains a copy

    class Clock(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
            if trainer.global_step == WARM_UP:
                clock["begun"] = time.perf_counter()

        def on_train_end(self, *_: Any) -> None:
            clock["ended"] = time.perf_counter()

    values = np.random.default_rng(0).standard_normal(hours).astype(np.float32)
    times = pd.Timestamp("2000-01-03") + pd.to_timedelta(np.arange(hours), "h")
    model = MLP(
        h=24,
        input_size=168,
        num_layers=2,
        hidden_size=width,
        loss=MQLoss(quantiles=[(i + 0.5) / bins for i in range(bins)]),
        max_steps=WARM_UP + steps,
        windows_batch_size=batch,
        callbacks=[Clock()],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        accelerator="auto",
    )
    table = pd.DataFrame({"unique_id": "series", "ds": times, "y": values})
    NeuralForecast(models=[model], freq="h").fit(table)
    return batch * steps / (clock["ended"] - clock["begun"])


if __name__ == "__main__":
    os.environ["NIXTLA_ID_AS_COL"] = "1"  # the package reads it when it is imported
    warnings.simplefilter("ignore")
    for logger in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    given = [int(argument) for argument in sys.argv[1:]]
    print(windows_per_second(*given))
