"""Stage 3: the student's hourly table, the teacher's views, and all that is fitted on the training part."""

import datetime as dt
from dataclasses import asdict

import numpy as np
import polars as pl
from prefect import task
from prefect.tasks import exponential_backoff

from schemas.hourly import hourly_schema
from schemas.manifests import FeaturesManifest, SpanManifest, ValidatedManifest
from schemas.readings import find_breaches
from tasks.caching import content_key, is_transient
from tasks.home import home
from tutelage.dataset import DatasetSpec
from tutelage.errors import DataError, GapsError
from tutelage.files import file_digest, folder_written_whole, value_digest, write_json
from tutelage.heads import fit_bins
from tutelage.networks import fit_scalers
from tutelage.resample import hourly_table, minutes_of_hours
from tutelage.windows import LEAST_WINDOWS, Panel, Span, make_panel, split, window_origins


@task(
    name="features",
    task_run_name="features {spec.name}-{horizon_hours}h",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def build_features(
    validated: ValidatedManifest,
    spec: DatasetSpec,
    *,
    horizon_hours: int,
    lookback_hours: int,
    history_days: int | None,
    validation_share: float,
    test_days: int,
    bins: int,
    end: dt.datetime | None = None,
) -> FeaturesManifest:
    """Resample, split chronologically, fit scalers and bins on the training part; write all into one folder.

    Where `end` (a full hour, UTC) is given, the test part ends there, and no reading from then on goes into anything.

    Raises GapsError where a part has too few windows to learn or to judge from.
    """
    grid = pl.read_parquet(validated.path)
    if end is not None:
        grid = grid.filter(pl.col("time_utc") < end)
    hours = hourly_table(grid, spec)
    breaches = find_breaches(hours, hourly_schema(spec), "hourly table")
    if breaches:
        raise DataError(f"hourly table: it breaks {breaches[0].rule}")
    minutes = minutes_of_hours(grid, hours, spec)
    panel = make_panel(hours, minutes, spec)
    first, last = hours["time_utc"].min(), hours["time_utc"].max()
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    parts = split(
        last + dt.timedelta(hours=1) if end is None else end,
        start=first,
        history_days=history_days,
        validation_share=validation_share,
        test_days=test_days,
    )
    spans = {
        name: _describe(panel, span, name, lookback=lookback_hours, horizon=horizon_hours)
        for name, span in (("train", parts.train), ("validation", parts.validation), ("test", parts.test))
    }
    in_train = (panel.hour >= parts.train.hours.start) & (panel.hour < parts.train.hours.stop)
    fitted = {
        "scalers": asdict(fit_scalers(panel, parts.train)),
        "bins": fit_bins(panel.observed[in_train, 0].numpy(), bins).edges,
        "train_utc": [parts.train.start.isoformat(), parts.train.end.isoformat()],
    }
    digest = value_digest([validated.digest, fitted, [span.model_dump(mode="json") for span in spans.values()]])
    folder = home() / "data" / "features" / digest
    with folder_written_whole(folder) as part:
        hours.write_parquet(part / "hourly.parquet")
        np.save(part / "minutes.npy", minutes)
        write_json(part / "fitted.json", fitted)
        content = {file.name: file_digest(file) for file in sorted(part.iterdir())}
    return FeaturesManifest(
        folder=folder,
        digest=value_digest([digest, content]),
        task=f"{spec.name}-{horizon_hours}h",
        dataset=spec.name,
        target=spec.target,
        unit=spec.target_column.unit,
        horizon_hours=horizon_hours,
        lookback_hours=lookback_hours,
        **spans,
        hours=hours.height,
        null_hours=hours[spec.target].null_count(),
    )


def _describe(panel: Panel, span: Span, name: str, *, lookback: int, horizon: int) -> SpanManifest:
    windows = len(window_origins(panel, span, lookback=lookback, horizon=horizon))
    if windows < LEAST_WINDOWS:
        raise GapsError(
            f"the {name} part, {span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M} UTC, has {windows} windows of "
            f"{lookback} past and {horizon} future hours without a null, fewer than {LEAST_WINDOWS}; "
            "take more days, or a shorter lookback"
        )
    return SpanManifest(start_utc=span.start, end_utc=span.end, windows=windows)
