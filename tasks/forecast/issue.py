"""The champion's forecast, as wide as what came true lately asks for, stored by issue time."""

import datetime as dt
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
from prefect import get_run_logger

from runtime.paths import home
from runtime.stage import stage
from schemas.forecast import ChampionManifest, ForecastManifest, RecentManifest, model_columns
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.grid import HOUR
from tutelage.data.steps import number_of
from tutelage.errors import DataError
from tutelage.files import written_whole
from tutelage.forecasts import QUANTILE_NAMES, Forecasts
from tutelage.model.conformal import Widths, follow, widened

ISSUE_FORMAT = "%Y-%m-%dT%H%MZ"
MOST_NAMES = 10
WIDTH_BELOW, WIDTH_ABOVE = "width_below", "width_above"
"""Columns of a stored forecast: the factors on the distance of its quantiles from the median (`Widths`)."""


def forecast_path(task_name: str, issued: str) -> Path:
    """The file of a task's forecast at an issue time, whichever version issued it."""
    return home() / "forecasts" / task_name / f"issue={issued}" / "forecast.parquet"


@stage("issue forecast", run_name="issue {champion.name}")
def issue_forecast(hours: RecentManifest, spec: DatasetSpec, champion: ChampionManifest) -> ForecastManifest:
    """Forecast every series with enough hours; an issued forecast never changes.

    Raises DataError where no series has enough hours.
    """
    path = forecast_path(champion.name, f"{hours.issue_time_utc:{ISSUE_FORMAT}}")
    table = pl.read_parquet(hours.path)
    good, refused = _sorted_out(table, hours.issue_time_utc, spec, champion)
    for name, reason in refused.items():
        get_run_logger().warning("%s: %s: no forecast", name, reason)
    fresh = not path.is_file()
    if fresh:
        if good.is_empty():
            why = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:MOST_NAMES])
            why = why or f"no series has a reading in the last {champion.lookback_hours} hours"
            raise DataError(f"{champion.name}: at {hours.issue_time_utc:%Y-%m-%d %H:%M} UTC {why}; nothing is issued")
        widths = _widths(path.parent.parent, table, hours.issue_time_utc, spec, champion)
        _write(path, table.join(good, on="series_id", how="semi", maintain_order="left"), good, widths, spec, champion)
    stored = pl.read_parquet(path)
    return ForecastManifest(
        path=path,
        task=champion.name,
        issue_time_utc=hours.issue_time_utc,
        model_version=stored["model_version"][0],
        rows=stored.height,
        filled_hours=stored.unique("series_id")["filled_hours"].sum(),
        refused=list(refused),
        fresh=fresh,
    )


def _sorted_out(
    hours: pl.DataFrame, issued: dt.datetime, spec: DatasetSpec, champion: ChampionManifest
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The series that can be forecast, with their numbers of filled and missing hours, and why each other one can't.

    A series without any reading in the lookback has ended, or has not begun; all of these are named in one line.
    """
    past = pl.col("time_utc") < issued
    needed = past & (pl.col("time_utc") >= issued - champion.complete_hours * HOUR)
    unknown = pl.any_horizontal(pl.lit(False), *(pl.col(name).is_null() for name in spec.names(Role.KNOWN_FUTURE)))
    state = hours.group_by("series_id", maintain_order=True).agg(
        filled=(pl.col("filled") & needed).sum(),
        missing=(pl.col("missing") & needed).sum(),
        is_silent=pl.col("missing").filter(past).all(),
        unplanned=(~past & unknown).sum(),
    )
    silent, rows = state.filter("is_silent")["series_id"].to_list(), state.filter(~pl.col("is_silent"))
    if silent:
        get_run_logger().info(
            "without a reading in the last %d hours, so without a forecast: %s", champion.lookback_hours,
            ", ".join(silent[:MOST_NAMES]) + (f" and {more} more" if (more := len(silent) - MOST_NAMES) > 0 else ""),
        )  # fmt: skip
    planned = " or ".join(spec.names(Role.KNOWN_FUTURE))
    at_most = spec.serving.at_most_hours * HOUR // spec.student_step
    late = (pl.col("filled") < pl.col("missing")) | (pl.col("missing") > at_most)
    complete, horizon = map(spec.grid.steps, (champion.complete_hours, champion.horizon_hours))
    reasons = {
        name: f"{missing} of {complete} past {spec.grid.plural} are missing, more than rule "
        f"{spec.serving.missing_hours} of the spec can fill ({filled} here, at most {at_most})"
        for name, filled, missing in rows.filter(late).select("series_id", "filled", "missing").iter_rows()
    }
    reasons |= {
        name: f"{planned} is not known of {unplanned} of the {horizon} {spec.grid.plural} ahead"
        for name, unplanned in rows.filter(~late & (pl.col("unplanned") > 0)).select("series_id", "unplanned").rows()
    }
    return rows.filter(~late & (pl.col("unplanned") == 0)), reasons


def _widths(
    folder: Path, hours: pl.DataFrame, issued: dt.datetime, spec: DatasetSpec, champion: ChampionManifest
) -> dict[str, Widths]:
    """The widths of each series: those of this version's last forecast, moved by what has come true since."""
    # The folders' names sort as their times do.
    every = sorted(folder.glob("issue=*/forecast.parquet"))
    earlier = [path for path in every if path.parent.name < f"issue={issued:{ISSUE_FORMAT}}"]
    if not earlier:
        return {}
    last = dt.datetime.strptime(earlier[-1].parent.name, f"issue={ISSUE_FORMAT}").replace(tzinfo=dt.UTC)
    ended = f"issue={last - champion.horizon_hours * HOUR:{ISSUE_FORMAT}}"
    covering = [pl.read_parquet(path) for path in earlier if path.parent.name > ended]
    stored = [table for table in covering if WIDTH_BELOW in table.columns]
    before = pl.concat(stored).filter(pl.col("model_version") == champion.version) if stored else pl.DataFrame()
    if before.is_empty():
        return {}
    known = hours.filter(~pl.col("missing")).select("series_id", "time_utc", actual=pl.col(spec.target)).drop_nulls()
    true = before.filter(pl.col("time_utc") >= last).join(known, on=["series_id", "time_utc"], how="inner")
    widths = {}
    for (name,), rows in before.sort("issue_time_utc").group_by("series_id", maintain_order=True):
        of_last = Widths(*rows.select(WIDTH_BELOW, WIDTH_ABOVE).row(-1))
        came_true = true.filter(pl.col("series_id") == name)
        widths[str(name)] = follow(
            of_last,
            came_true.select(number_of(pl.col("time_utc"), spec.grid)).to_series().to_numpy(),
            _as_forecast_by_the_model(came_true),
            came_true["actual"].to_numpy().astype(np.float64),
            since=spec.grid.index(last) - 1,
            grid=spec.grid,
        )
    return widths


def _as_forecast_by_the_model(rows: pl.DataFrame) -> np.ndarray:
    """The quantiles of stored rows, (rows, levels), before they were widened."""
    quantiles = rows.select(QUANTILE_NAMES).to_numpy().astype(np.float64)
    median = quantiles[:, [QUANTILE_NAMES.index("q50")]]
    below, above = (rows.select(name).to_numpy() for name in (WIDTH_BELOW, WIDTH_ABOVE))
    return median + (quantiles - median) / np.where(quantiles < median, below, above)


def _widened(table: pl.DataFrame, widths: dict[str, Widths]) -> pl.DataFrame:
    """A model's forecast with the widths of each series, and these as columns."""
    parts = []
    for (name,), rows in table.group_by("series_id", maintain_order=True):
        width = widths.get(str(name), Widths())
        quantiles = rows.select(QUANTILE_NAMES).to_numpy().astype(np.float64)
        moved = widened(Forecasts(rows["mean"].to_numpy().astype(np.float64)[None], quantiles[None]), width)
        parts.append(
            rows.with_columns(
                pl.Series("mean", moved.mean[0]),
                *(pl.Series(level, moved.quantiles[0, :, place]) for place, level in enumerate(QUANTILE_NAMES)),
                pl.lit(width.below).alias(WIDTH_BELOW),
                pl.lit(width.above).alias(WIDTH_ABOVE),
            )
        )
    return pl.concat(parts)


def _write(
    path: Path,
    hours: pl.DataFrame,
    good: pl.DataFrame,
    widths: dict[str, Widths],
    spec: DatasetSpec,
    champion: ChampionManifest,
) -> None:
    """Call the model, and write its forecast with these widths and the quality of its input."""
    model, table = mlflow.pyfunc.load_model(str(champion.folder)), hours.select(model_columns(spec)).to_pandas()
    forecaster = model.unwrap_python_model()
    # A version registered before 0.2 can only be called like by any user, who gets an object made of each row.
    predicted = forecaster.forecast(table) if hasattr(forecaster, "forecast") else model.predict(table)
    times = ["issue_time_utc", "time_utc"]
    # polars converts times with a zone through a pandas call that warns
    forecast = pl.from_pandas(predicted.assign(**{name: predicted[name].dt.tz_localize(None) for name in times}))
    quality = pl.when(pl.col("filled_hours") > 0).then(pl.lit("filled")).otherwise(pl.lit("complete"))
    filled = good.select("series_id", filled_hours=pl.col("filled").cast(pl.Int64) * spec.grid.hours)
    with_quality = _widened(forecast, widths).join(filled, on="series_id", maintain_order="left")
    with written_whole(path) as part:
        with_quality.with_columns(
            pl.col(times).dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
            quality=quality,
            model_version=pl.lit(champion.version),
        ).write_parquet(part)
