"""The folds of a study's history."""

import polars as pl

from runtime.stage import cached_stage
from schemas.retrain import ValidatedManifest
from schemas.study import FoldsManifest, FoldSpan
from tutelage.data.dataset import DatasetSpec
from tutelage.data.folds import rolling_folds
from tutelage.data.issued import last_time


@cached_stage("folds", run_name="folds {folds} x {score_days} days")
def lay_folds(
    validated: ValidatedManifest,
    spec: DatasetSpec,
    *,
    folds: int,
    score_days: int,
    test_days: int,
    history_days: int | None,
    train_days: int | None,
    validation_share: float,
) -> FoldsManifest:
    """Lay the folds in the history before the test part, from the times of the readings only."""
    ends = (pl.col("time_utc").min().alias("first"), last_time(spec).alias("last"))
    first, last = pl.scan_parquet(validated.path).select(ends).collect().row(0)
    parts = rolling_folds(
        spec.grid.floor(first),
        spec.grid.floor(last) + spec.student_step,
        folds=folds,
        score_days=score_days,
        test_days=test_days,
        history_days=history_days,
        train_days=train_days,
        validation_share=validation_share,
        grid=spec.grid,
    )
    spans = [
        FoldSpan(
            number=number,
            learn_days=(part.test.start - part.train.start).days,
            score_start_utc=part.test.start,
            end_utc=part.test.end,
        )
        for number, part in enumerate(parts, start=1)
    ]
    return FoldsManifest(folds=spans)
