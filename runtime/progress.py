"""Progress of a training: a Prefect progress artifact, MLflow metrics, a line on the terminal."""

import re
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Literal
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from runtime.runs import log_history
from tutelage.model.training import Progress

EVERY_EPOCHS = 5


def mean_rows(progress: Progress, members: slice = slice(None)) -> list[dict[str, float]]:
    """The history averaged over all or selected members: epoch, training and validation loss."""
    return [
        {"epoch": row["epoch"]} | {name: fmean(row[name][members]) for name in ("train", "validation")}
        for row in progress.history
    ]


def reporter(
    stage: str,
    task_name: str,
    epochs: int,
    runs: Mapping[str, Callable[[Progress], list[dict[str, float]]]],
    *,
    watched: Literal["train", "validation"] = "validation",
) -> Callable[[Progress], None]:
    """A callback for `train_network` that reports every EVERY_EPOCHS epochs and at the end.

    epochs: maximum number of epochs
    runs: MLflow run id → the rows of the history to log to it
    watched: the loss to show; a refit holds nothing out, so its validation loss means nothing
    """
    log = get_run_logger()
    key = re.sub(r"[^a-z0-9]+", "-", f"{stage}-{task_name}".lower())
    artifact: UUID | None = None

    def report(progress: Progress) -> None:
        nonlocal artifact
        if not progress.done and progress.epoch % EVERY_EPOCHS:
            return
        share = 100.0 if progress.done else 100.0 * progress.epoch / epochs
        losses = progress.history[-1][watched]
        text = f"epoch {progress.epoch} of at most {epochs}, {watched} loss {fmean(losses):.4f}"
        log.info("%s %s: %s", task_name, stage, text + (", done" if progress.done else ""))
        for run_id, rows in runs.items():
            log_history(run_id, rows(progress))
        if artifact is None:
            created = create_progress_artifact(share, key=key, description=text)
            artifact = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(artifact, share, description=text)

    return report
