"""The student's table, the teacher's readings within its steps, the scalers and bins, and the series' sizes."""

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl

from runtime.artifacts import plain_fitted, write_features, write_other_sites
from runtime.paths import home
from runtime.stage import cached_stage
from schemas.readings import find_breaches
from schemas.retrain import FeaturesManifest, SpanManifest, ValidatedManifest
from schemas.student import student_schema
from tutelage.data.dataset import DatasetSpec
from tutelage.data.resample import privileged_shares, readings_within, student_table
from tutelage.data.sizes import Sizes, find_sizes
from tutelage.data.windows import LEAST_WINDOWS, Panel, Parts, Span, ends_of, make_panel, split, window_origins
from tutelage.distil.dataset import Fitted, fit_on
from tutelage.errors import DataError, GapsError
from tutelage.files import file_digest, folder_written_whole, value_digest


@cached_stage("features", run_name="features {spec.name}-{horizon_hours}h")
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
    others: ValidatedManifest | None = None,
    others_spec: DatasetSpec | None = None,
    end: dt.datetime | None = None,
) -> FeaturesManifest:
    """Resample, split chronologically, fit scalers and bins on the training part; write everything into one folder.

    others, others_spec: readings of other sites that teachers learn from
    end: end of the test part, the start of a step, UTC; no later reading is used. None: the end of the data

    Raises GapsError where a part has too few windows.
    """
    hours, minutes = _resampled(pl.read_parquet(validated.path), spec, end)
    first, last = ends_of(hours, spec)
    parts = split(
        last if end is None else end,
        start=first,
        history_days=history_days,
        validation_share=validation_share,
        test_days=test_days,
        grid=spec.grid,
    )
    lookback, horizon = (
        spec.grid.steps(number, called=called)
        for called, number in (("lookback_hours", lookback_hours), ("horizon_hours", horizon_hours))
    )
    sizes = find_sizes(hours, spec, start=parts.train.start, end=parts.train.end, least=lookback)
    panel = make_panel(hours, minutes, spec, sizes)
    spans = _describe_parts(panel, parts, hours, spec, lookback=lookback, horizon=horizon)
    sites, source = None, validated.digest
    if others is not None and others_spec is not None:
        sites = make_panel(*_resampled(pl.read_parquet(others.path), others_spec, end), others_spec)
        source = value_digest([source, others.digest, others_spec.model_dump(mode="json")])
    folder, digest = _write(hours, minutes, fit_on(panel, parts.train, bins=bins), sizes, spans, source, sites)
    return FeaturesManifest(
        folder=folder,
        digest=digest,
        task=f"{spec.name}-{horizon_hours}h",
        dataset=spec.name,
        target=spec.target,
        unit=spec.target_column.unit,
        horizon_hours=horizon_hours,
        lookback_hours=lookback_hours,
        **spans,
        steps=hours.height,
        null_steps=hours[spec.target].null_count(),
        unused_days=(parts.train.start - first).days,
    )


def _resampled(grid: pl.DataFrame, spec: DatasetSpec, end: dt.datetime | None) -> tuple[pl.DataFrame, np.ndarray]:
    """The validated table of the student, and the readings within its steps."""
    if end is not None:
        grid = grid.filter(pl.col("time_utc") < end)
    hours = student_table(grid, spec)
    breaches = find_breaches(hours, student_schema(spec), "student's table")
    if breaches:
        raise DataError(f"student's table: rows break the rule {breaches[0].rule}")
    return hours, readings_within(grid, hours, spec)


def _describe_parts(
    panel: Panel, parts: Parts, hours: pl.DataFrame, spec: DatasetSpec, *, lookback: int, horizon: int
) -> dict[str, SpanManifest]:
    def describe(name: str, span: Span) -> SpanManifest:
        origins = window_origins(panel, span, lookback=lookback, horizon=horizon, start=parts.train.start)
        needed = f"{lookback} past and {horizon} future {spec.grid.plural}"
        described = _describe(span, name, needed, windows=len(origins))
        inside = hours.filter(pl.col("time_utc").is_between(span.start, span.end, closed="left"))
        return described.model_copy(update=privileged_shares(inside, spec))

    return {name: describe(name, span) for name, span in vars(parts).items()}


def _describe(span: Span, name: str, needed: str, *, windows: int) -> SpanManifest:
    if windows < LEAST_WINDOWS:
        raise GapsError(
            f"the {name} part, {span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M} UTC, has {windows} windows of "
            f"{needed} without a null, fewer than {LEAST_WINDOWS}; "
            "take more days, or a shorter lookback"
        )
    return SpanManifest(start_utc=span.start, end_utc=span.end, windows=windows)


def _write(
    hours: pl.DataFrame,
    minutes: np.ndarray,
    fitted: Fitted,
    sizes: Sizes | None,
    spans: dict[str, SpanManifest],
    source: str,
    sites: Panel | None,
) -> tuple[Path, str]:
    """Write the folder of these readings and parts; return it and the digest of its content."""
    parts = {name: span.model_dump(mode="json") for name, span in spans.items()}
    digest = value_digest([source, plain_fitted(fitted, sizes), parts])
    folder = home() / "data" / "features" / digest
    with folder_written_whole(folder) as part:
        write_features(part, hours, minutes, fitted, sizes)
        if sites is not None:
            write_other_sites(part, sites)
        content = {file.name: file_digest(file) for file in sorted(part.iterdir())}
    return folder, value_digest([digest, content])
