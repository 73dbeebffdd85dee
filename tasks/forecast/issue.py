"""The champion's forecast, moved by what came true lately, stored by issue time."""

import datetime as dt
from pathlib import Path

import mlflow
import polars as pl
from prefect import get_run_logger

from runtime.paths import ISSUE_FORMAT, home
from runtime.stage import stage
from schemas.forecast import ChampionManifest, ForecastManifest, RecentManifest, model_columns
from tasks.forecast.following import states_at, with_states
from tutelage.data.dataset import DatasetSpec, Role
from tutelage.data.grid import HOUR
from tutelage.errors import DataError
from tutelage.files import written_whole
from tutelage.forecasts import QUANTILE_NAMES
from tutelage.model.aggregation import Atom, Members

MOST_NAMES = 10


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
        usable = table.join(good, on="series_id", how="semi", maintain_order="left")
        forecast, members = _forecast(usable, spec, champion)
        states = states_at(path.parent.parent, table, hours.issue_time_utc, spec, champion, members)
        _write(path, with_states(forecast, members, states), good, spec, champion)
    stored = pl.read_parquet(path, columns=["series_id", "model_version", "filled_hours"])
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


def _forecast(
    hours: pl.DataFrame, spec: DatasetSpec, champion: ChampionManifest
) -> tuple[pl.DataFrame, dict[str, Members]]:
    """The model's forecast as a table, and each series' members: (members, 1 window, horizon[, levels])."""
    model, table = mlflow.pyfunc.load_model(str(champion.folder)), hours.select(model_columns(spec)).to_pandas()
    forecaster = model.unwrap_python_model()
    members = {}
    if hasattr(forecaster, "forecast_members"):
        predicted, of_series = forecaster.forecast_members(table)
        shares, atom = forecaster.card["shares"], forecaster.card["atom"]
        for name, each in zip(predicted["series_id"].unique(), of_series, strict=True):
            means, quantiles = each["member_means"][:, None], each["member_quantiles"][:, None]
            scaled = None if atom is None else Atom(*(float(each["scale"]) * atom[part] for part in ("value", "reach")))
            members[name] = Members(shares, means, quantiles, scaled)
    else:
        # A version registered before 0.2 does not say what it is the average of. The first ones can only be called like
        # by any user, who gets an object made of each row.
        predicted = forecaster.forecast(table) if hasattr(forecaster, "forecast") else model.predict(table)
        for name, rows in predicted.groupby("series_id", sort=False):
            mean, quantiles = rows["mean"].to_numpy(), rows[list(QUANTILE_NAMES)].to_numpy()
            members[str(name)] = Members({"model": 1.0}, mean[None, None], quantiles[None, None])
    # polars converts times with a zone through a pandas call that warns
    times = ["issue_time_utc", "time_utc"]
    return pl.from_pandas(
        predicted.assign(**{name: predicted[name].dt.tz_localize(None) for name in times})
    ).with_columns(pl.col(times).dt.cast_time_unit("us").dt.replace_time_zone("UTC")), members


def _write(
    path: Path, forecast: pl.DataFrame, good: pl.DataFrame, spec: DatasetSpec, champion: ChampionManifest
) -> None:
    """Write a forecast with the quality of its input and the version that it is from."""
    quality = pl.when(pl.col("filled_hours") > 0).then(pl.lit("filled")).otherwise(pl.lit("complete"))
    filled = good.select("series_id", filled_hours=pl.col("filled").cast(pl.Int64) * spec.grid.hours)
    with written_whole(path) as part:
        forecast.join(filled, on="series_id", maintain_order="left").with_columns(
            quality=quality, model_version=pl.lit(champion.version)
        ).write_parquet(part)
