"""How training goes, for those who wait: a Prefect progress artifact, MLflow metrics, a line on the terminal."""

import re
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Literal
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.tracking import log_history
from tutelage.fit import Progress

EVERY_EPOCHS = 5


def mean_rows(progress: Progress, members: slice = slice(None)) -> list[dict[str, float]]:
    """The history averaged over members, or over some of them: epoch, train and validation loss."""
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
    """A function that `fit` calls after each epoch; it speaks every few epochs and at the end.

    runs: MLflow run id → the part of the history that belongs there
    watched: the loss that is told; where nothing is held out, a validation loss would tell nothing
    """
    log = get_run_logger()
    key = re.sub(r"[^a-z0-9]+", "-", f"{stage}-{task_name}".lower())
    artifact: UUID | None = None

    def report(progress: Progress) -> None:
        nonlocal artifact
        if not progress.done and progress.epoch % EVERY_EPOCHS:
            return
        share = 100.0 if progress.done else 100.0 * progress.epoch / epochs
        last = progress.history[-1][watched]
        text = f"epoch {progress.epoch} of at most {epochs}, {watched} loss {sum(last) / len(last):.4f}"
        log.info("%s %s: %s", task_name, stage, text + (", done" if progress.done else ""))
        for run_id, rows in runs.items():
            log_history(run_id, rows(progress))
        if artifact is None:
            found = create_progress_artifact(share, key=key, description=text)
            artifact = found if isinstance(found, UUID) else None
        else:
            update_progress_artifact(artifact, share, description=text)

    return report
