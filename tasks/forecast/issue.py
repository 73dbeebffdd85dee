"""The champion's forecast, stored by issue time."""

from pathlib import Path

import mlflow
import polars as pl
from prefect import get_run_logger

from runtime.paths import home
from runtime.stage import stage
from schemas.forecast import ChampionManifest, ForecastManifest, HoursManifest, model_columns
from tutelage.data.dataset import DatasetSpec
from tutelage.data.inputs import HOUR
from tutelage.errors import DataError
from tutelage.files import written_whole


def forecast_path(task_name: str, issued: str) -> Path:
    """The file of a task's forecast at an issue time, whichever version issued it."""
    return home() / "forecasts" / task_name / f"issue={issued}" / "forecast.parquet"


@stage("issue forecast", run_name="issue {champion.name}")
def issue_forecast(hours: HoursManifest, spec: DatasetSpec, champion: ChampionManifest) -> ForecastManifest:
    """Forecast every series with enough hours; an issued forecast never changes.

    Raises DataError where no series has enough hours.
    """
    path = forecast_path(champion.name, f"{hours.issue_time_utc:%Y-%m-%dT%H%MZ}")
    table = pl.read_parquet(hours.path)
    needed = pl.col("time_utc") >= hours.issue_time_utc - champion.complete_hours * HOUR
    state = (
        table.filter(needed)
        .group_by("series_id", maintain_order=True)
        .agg(filled=pl.col("filled").sum(), missing=pl.col("missing").sum())
    )
    enough = (pl.col("filled") == pl.col("missing")) & (pl.col("missing") <= spec.serving.at_most_hours)
    refused = state.filter(~enough)
    for name, filled, missing in refused.iter_rows():
        get_run_logger().warning(
            "%s: %d of the %d hours before %s are missing, %d can be filled by rule %s, %d are tolerated: no forecast",
            name, missing, champion.complete_hours, hours.issue_time_utc, filled,
            spec.serving.missing_hours, spec.serving.at_most_hours,
        )  # fmt: skip
    fresh = not path.is_file()
    if fresh:
        good = state.filter(enough)
        if good.is_empty():
            worst = int(refused["missing"].to_numpy().max())
            raise DataError(
                f"{champion.name}: at {hours.issue_time_utc:%Y-%m-%d %H:%M} UTC {worst} of {champion.complete_hours} "
                f"past hours are missing, more than rule {spec.serving.missing_hours} of the spec can fill "
                f"(at most {spec.serving.at_most_hours}); nothing is issued"
            )
        _write(path, table.join(good, on="series_id", how="semi", maintain_order="left"), good, spec, champion)
    stored = pl.read_parquet(path)
    return ForecastManifest(
        path=path,
        task=champion.name,
        issue_time_utc=hours.issue_time_utc,
        model_version=stored["model_version"][0],
        rows=stored.height,
        filled_hours=int(stored.unique("series_id")["filled_hours"].sum()),
        refused=refused["series_id"].to_list(),
        fresh=fresh,
    )


def _write(path: Path, hours: pl.DataFrame, good: pl.DataFrame, spec: DatasetSpec, champion: ChampionManifest) -> None:
    """Call the model like any user, and write its forecast with the quality of its input."""
    model = mlflow.pyfunc.load_model(str(champion.folder))
    predicted = model.predict(hours.select(model_columns(spec)).to_pandas())
    times = ["issue_time_utc", "time_utc"]
    # polars converts times with a zone through a pandas call that warns
    forecast = pl.from_pandas(predicted.assign(**{name: predicted[name].dt.tz_localize(None) for name in times}))
    quality = pl.when(pl.col("filled_hours") > 0).then(pl.lit("filled")).otherwise(pl.lit("complete"))
    with_quality = forecast.join(
        good.select("series_id", filled_hours=pl.col("filled").cast(pl.Int64)), on="series_id", maintain_order="left"
    )
    with written_whole(path) as part:
        with_quality.with_columns(
            pl.col(times).dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
            quality=quality,
            model_version=pl.lit(champion.version),
        ).write_parquet(part)
