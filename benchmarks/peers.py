"""NHITS and MSTL on the windows of `benchmarks.accuracy`, in an environment of their own: `.venv-peers`.

    .venv-peers/bin/python benchmarks/peers.py FOLDER

FOLDER holds PIECE.input.npz: the hourly target of history and test part, known columns, test origins. For each the
quantiles of both peers at LEVELS are written next to it, as PIECE.nhits.npz and PIECE.mstl.npz; what is there stays.

NHITS (Challu et al. 2023, neuralforecast): a week of input, hour and weekday as known columns, multi-quantile loss,
stopped early by the last fifth of the history, from which it learns nothing else, trained once. The package's defaults
(512 units, no dropout) learn such histories by heart; width, dropout, learning rate and checks here are those of nine
settings that were best on three of the reported pieces, so they are chosen with hindsight. MSTL (Bandara et al. 2021,
statsforecast): daily and weekly seasons, the trend by exponential smoothing, fitted anew on the last four weeks at each
origin, normal intervals.
"""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)
START = pd.Timestamp("2000-01-03")  # a Monday; the peers see the real hour and weekday as columns
MSTL_HOURS = 28 * 24


def nhits(given: dict[str, np.ndarray]) -> np.ndarray:
    """Quantiles (origins, horizon, levels) by one network, trained on the history."""
    import torch
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MQLoss
    from neuralforecast.models import NHITS

    torch.set_num_threads(1)
    horizon, first_test = int(given["horizon"]), int(given["first_test"])
    table = pd.DataFrame(
        {
            "unique_id": "series",
            "ds": START + pd.to_timedelta(np.arange(len(given["target"])), "h"),
            "y": given["target"],
        }
    )
    hour, weekday = given["known"][:, 0], given["known"][:, 1]
    clock = {
        "hour_sin": np.sin(hour * 2 * np.pi / 24),
        "hour_cos": np.cos(hour * 2 * np.pi / 24),
        "week_sin": np.sin(weekday * 2 * np.pi / 7),
        "week_cos": np.cos(weekday * 2 * np.pi / 7),
        "free": ((weekday > 4) | (given["known"][:, 2] > 0)).astype(float),
    }
    table = table.assign(**clock)
    model = NHITS(
        h=horizon,
        input_size=168,
        loss=MQLoss(quantiles=list(LEVELS)),
        futr_exog_list=list(clock),
        mlp_units=3 * [[64, 64]],
        dropout_prob_theta=0.3,
        max_steps=1000,
        val_check_steps=20,
        early_stop_patience_steps=3,
        learning_rate=3e-4,
        windows_batch_size=256,
        scaler_type="robust",
        start_padding_enabled=True,
        random_seed=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    answer = NeuralForecast(models=[model], freq="h").cross_validation(
        table, val_size=max(first_test // 5, horizon), test_size=len(table) - first_test, n_windows=None, step_size=1
    )
    names = [name for name in answer.columns if name.startswith("NHITS")]
    if len(names) != len(LEVELS):
        raise ValueError(f"NHITS answers with {names}, not with {len(LEVELS)} quantiles")
    issued = ((answer["cutoff"] - START) // pd.Timedelta("1h") + 1).to_numpy()
    by_origin = {origin: rows[names].to_numpy() for origin, rows in answer.groupby(issued)}
    return np.stack([by_origin[origin] for origin in given["origins"]])


def mstl(given: dict[str, np.ndarray]) -> np.ndarray:
    """Quantiles (origins, horizon, levels), each origin fitted by itself."""
    from statsforecast import StatsForecast
    from statsforecast.models import MSTL, AutoETS

    horizon, hours = int(given["horizon"]), min(MSTL_HOURS, int(given["origins"].min()))
    past = given["target"][given["origins"][:, None] + np.arange(-hours, 0)]
    table = pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(len(past)), hours),
            "ds": np.tile(START + pd.to_timedelta(np.arange(hours), "h"), len(past)),
            "y": past.ravel(),
        }
    )
    seasons = [24, 168] if hours >= 2 * 168 else [24]
    model = MSTL(season_length=seasons, trend_forecaster=AutoETS(model="ZZN"))
    widths = sorted({round(abs(2 * level - 1) * 100) for level in LEVELS if level != 0.5})
    answer = StatsForecast(models=[model], freq="h", n_jobs=-1).forecast(df=table, h=horizon, level=widths)
    columns = [
        "MSTL" if level == 0.5 else f"MSTL-{'lo' if level < 0.5 else 'hi'}-{round(abs(2 * level - 1) * 100)}"
        for level in LEVELS
    ]
    return answer.sort_values(["unique_id", "ds"])[columns].to_numpy().reshape(len(past), horizon, -1)


PEERS: dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]] = {"nhits": nhits, "mstl": mstl}


def main(folder: Path) -> None:
    """Forecast every piece by every peer, the oldest inputs first."""
    for path in sorted(folder.glob("*.input.npz"), key=lambda each: each.stat().st_mtime):
        with np.load(path) as file:
            given: dict[str, Any] = dict(file)
        for name, forecast in PEERS.items():
            result = path.with_name(path.name.replace(".input.", f".{name}."))
            if result.exists():
                continue
            begun = time.perf_counter()
            part = result.with_suffix(".part")
            with part.open("wb") as file:
                np.savez_compressed(file, quantiles=np.sort(forecast(given), axis=-1).astype(np.float32))
            part.replace(result)
            print(f"  {result.stem}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.environ["NIXTLA_ID_AS_COL"] = "1"  # the peers' packages read it when they are imported
    warnings.simplefilter("ignore")
    for logger in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    main(Path(sys.argv[1]))
