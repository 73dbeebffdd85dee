"""The verdict of one retrain: what `verdict.json` holds."""

import datetime as dt
from typing import Any

from pydantic import BaseModel, ConfigDict


class Registered(BaseModel):
    """The version that the retrain registered; `alias` is the highest that it was given."""

    name: str
    version: str
    alias: str
    model: str


class Refit(BaseModel):
    """How the registered version was trained after the verdict: on all before `until_utc`, so many epochs a network."""

    until_utc: dt.datetime
    windows: int
    epochs: dict[str, int]


class Verdict(BaseModel):
    """Was the privileged data worth it? Figures are in the target's unit, gains are shares, times are UTC.

    metrics: of student and twin the means over all pairs; `chosen` is the one of the first pair that was registered;
        `no_privilege`, where there is a control, are students of teachers that saw nothing more than they
    gain_vs_no_privilege_crps: what the privileged data brought beside distillation alone; None: without a control
    gate_by_hour: how far the teacher was trusted in each hour of the horizon, from 0 to 1; None: without a gate
    """

    model_config = ConfigDict(extra="forbid")

    task: str
    sentence: str
    unit: str
    n_train_windows: int
    n_validation_windows: int
    n_test_windows: int
    metrics: dict[str, dict[str, float]]
    validation_crps: dict[str, float]
    gain_vs_twin_crps: dict[str, float]
    gain_vs_no_privilege_crps: dict[str, float] | None
    gain_by_pair_crps: list[float]
    gate_by_hour: list[float] | None
    gain_vs_champion_crps: dict[str, float] | None
    quality: dict[str, int]
    leak_guard: dict[str, Any]
    registered: Registered
    refit: Refit | None
    parts_utc: dict[str, list[dt.datetime]]
    data_digest: str
    mlflow_run_id: str
    seed: int
