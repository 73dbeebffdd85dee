"""Progress of a training: a Prefect progress artifact, MLflow metrics, a line on the terminal."""

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from threading import Lock
from typing import Literal
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from runtime.runs import log_history
from tutelage.model.training import Progress

EVERY_EPOCHS = 5
_one_report = Lock()
"""Trainings side by side share an artifact, which is made once."""
BLOCK_SUFFIX = re.compile(r"-block-[0-9]+")


def mean_rows(progress: Progress, members: slice = slice(None)) -> list[dict[str, float]]:
    """The history averaged over all or selected members: epoch, training and validation loss."""
    return [
        {"epoch": row["epoch"]} | {name: fmean(row[name][members]) for name in ("train", "validation")}
        for row in progress.history
    ]


def mean_history(histories: Sequence[list[dict[str, float]]]) -> list[dict[str, float]]:
    """The mean of several trainings' histories by epoch, as far as all have got."""
    return [{key: fmean(row[key] for row in same) for key in same[0]} for same in zip(*histories, strict=False)]


def reporter(
    stage: str,
    task_name: str,
    epochs: int,
    runs: Mapping[str, Callable[[Progress], list[dict[str, float]]]],
    *,
    watched: Literal["train", "validation"] = "validation",
    artifacts: dict[str, UUID] | None = None,
) -> Callable[[Progress], None]:
    """A callback for `train_network` that reports every EVERY_EPOCHS epochs and at the end.

    epochs: maximum number of epochs
    runs: MLflow run id → the rows of the history to log to it
    watched: the loss to show; a refit holds nothing out, so its validation loss means nothing
    artifacts: progress artifacts by key, to share by trainings that differ only in the block that they hold out
    """
    log = get_run_logger()
    key = re.sub(r"[^a-z0-9]+", "-", f"{BLOCK_SUFFIX.sub('', stage)}-{task_name}".lower())
    shared = {} if artifacts is None else artifacts

    def report(progress: Progress) -> None:
        if not progress.done and progress.epoch % EVERY_EPOCHS:
            return
        share = 100.0 if progress.done else 100.0 * progress.epoch / epochs
        losses = progress.history[-1][watched]
        text = f"epoch {progress.epoch} of at most {epochs}, {watched} loss {fmean(losses):.4f}"
        log.info("%s %s: %s", task_name, stage, text + (", done" if progress.done else ""))
        for run_id, rows in runs.items():
            log_history(run_id, rows(progress))
        text = f"{stage}: {text}"
        with _one_report:
            if key in shared:
                update_progress_artifact(shared[key], share, description=text)
                return
            created = create_progress_artifact(share, key=key, description=text)
            if isinstance(created, UUID):
                shared[key] = created

    return report
