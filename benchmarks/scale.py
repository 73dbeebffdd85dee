"""What more series cost, from one to a thousand: `make bench-scale`.

Hourly meters of 160 days, a day ahead: the homes of the demo, each again and again with another size and other noise.
For each number of series, in a process and a home of its own: a retrain by the default recipe, without a refit and
without unprivileged teachers (these meters have no privileged columns), and two forecasts of all series, of which the
second counts, with everything imported. Seconds by stage are Prefect's; memory is the process's peak, without that of
the temporary Prefect server (some 200 MB). The exponent is the slope of log seconds over log series, from ten series
on, where the fixed part hides less of it; 1 is proportional.

Writes benchmarks/results/scale.json. QUICK=1 takes 1 and 10 series, and writes under TUTELAGE_HOME.
"""

import datetime as dt
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import yaml
from prefect import flow
from prefect.client.orchestration import get_client

from flows.forecast import forecast
from flows.homes import read_homes
from flows.reproduce import environment_of
from flows.retrain import retrain
from flows.rollback import rollback
from runtime.paths import datasets_folder, home
from runtime.provenance import git_commit
from schemas.forecast import ForecastParameters
from schemas.promotion import RollbackParameters
from schemas.retrain import RetrainParameters
from tutelage.files import read_json, write_json

QUICK = os.environ.get("QUICK") == "1"
RESULTS = Path(__file__).parent / "results" / "scale.json"
SERIES = (1, 10) if QUICK else (1, 10, 100, 1000)
DAYS, TEST_DAYS = 160, 30
NAME = "meters"
FORECAST_AT = tuple(dt.datetime(2017, 8, 1, hour, tzinfo=dt.UTC) for hour in (5, 6))


def write_meters(folder: Path, series: int) -> None:
    """Write the meters as one parquet file, and their spec."""
    homes, noise = read_homes(), np.random.default_rng(0)
    names = homes["home"].unique(maintain_order=True).to_list()
    tables = []
    for number in range(series):
        of_home = homes.filter(pl.col("home") == names[number % len(names)]).tail(24 * DAYS)
        load = of_home["load_kwh"].to_numpy() * noise.uniform(0.2, 5.0) * noise.lognormal(0.0, 0.1, of_home.height)
        tables.append(of_home.select("time", meter=pl.lit(f"m{number:04d}"), load_kwh=load))
    pl.concat(tables).write_parquet(folder / f"{NAME}.parquet")
    spec = {
        "name": NAME,
        "description": "homes of all sizes",
        "source": {"path": str(folder / f"{NAME}.parquet"), "format": "parquet"},
        "timestamp": {"columns": ["time"], "timezone": "Etc/GMT+8"},
        "series_column": "meter",
        "target": "load_kwh",
        "raw_step": "PT1H",
        "student_step": "PT1H",
        "columns": [
            {"name": "load_kwh", "source": "load_kwh", "role": "observed", "unit": "kWh", "minimum": 0, "maximum": 500}
        ],
        "calendar": {"timezone": "Etc/GMT+8", "country": "US"},
    }
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(spec))


@flow(name="measured")
def measure(series: int) -> dict[str, Any]:
    """A retrain and two forecasts of this many series, in this process."""
    begun = time.perf_counter()
    verdict = retrain(RetrainParameters(dataset=NAME, test_days=TEST_DAYS, unprivileged=False, refit=False))
    seconds, peak_mb = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if verdict.registered.alias != "champion":
        # Whether it is better than simple forecasts is not the question here: it forecasts in any case.
        name, version = verdict.task, int(verdict.registered.version)
        rollback(RollbackParameters(name=name, version=version, by="benchmark", why="to be measured"))
    for as_of in FORECAST_AT:
        begun = time.perf_counter()
        forecast(ForecastParameters(dataset=NAME, as_of=as_of))
        forecast_seconds = time.perf_counter() - begun
    with get_client(sync_client=True) as prefect:
        runs = prefect.read_task_runs(limit=200)
    stages: dict[str, float] = {}
    for run in runs:
        stage = run.name.rsplit(" ", 1)[0]
        stages[stage] = stages.get(stage, 0.0) + run.total_run_time.total_seconds()
    return {
        "series": series,
        "readings": series * 24 * DAYS,
        "windows": {name: part.windows for name, part in verdict.parts.items()},
        "retrain_seconds": seconds,
        "forecast_seconds": forecast_seconds,
        "peak_mb": peak_mb,
        "disk_mb": sum(path.stat().st_size for path in home().rglob("*") if path.is_file()) / 1e6,
        "task_runs": len(runs),
        "stages": dict(sorted(stages.items(), key=lambda item: -item[1])),
    }


def exponent_of(rows: list[dict[str, Any]], name: str) -> float | None:
    """The slope of log seconds over log series, from ten series on; None: of too few."""
    large = [row for row in rows if row["series"] >= 10]
    if len(large) < 2:
        return None
    return float(np.polyfit(np.log([row["series"] for row in large]), np.log([row[name] for row in large]), 1)[0])


def main(arguments: list[str]) -> None:
    """Measure each number of series in a process of its own; print and write the table."""
    if arguments:
        series, path = int(arguments[0]), Path(arguments[1])
        datasets_folder().mkdir(parents=True)
        write_meters(datasets_folder(), series)
        write_json(path, measure(series))
        return
    rows = []
    for series in SERIES:
        with TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.scale", str(series), f"{folder}/row.json"]
            subprocess.run(command, env=environment_of(Path(folder)), check=True)
            rows.append(read_json(Path(folder) / "row.json"))
        print({name: value for name, value in rows[-1].items() if name != "stages"}, flush=True)
        exponents = {name: exponent_of(rows, f"{name}_seconds") for name in ("retrain", "forecast")}
        settings = {"days": DAYS, "test_days": TEST_DAYS, "cores": os.cpu_count(), "commit": git_commit()}
        results = home() / "benchmarks" / RESULTS.name if QUICK else RESULTS
        write_json(results, {"rows": rows, "exponent": exponents, "settings": settings})
    print(exponents)


if __name__ == "__main__":
    main(sys.argv[1:])
