"""The demo's campaign: a household with a minute logger and sub-meters for 100 days, then only its hourly meter.

Made of the recorded household (`household` in deployments/datasets): its minutes up to the end of the campaign as they
are, and after it the means of its hours, without any privileged column. An hour with too few good readings is empty.
"""

import datetime as dt
import os
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from runtime.paths import datasets_folder, home
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.quality import clean
from tutelage.data.readings import read_readings
from tutelage.data.resample import student_table
from tutelage.data.source import source_files
from tutelage.files import written_whole

VARIABLE = "TUTELAGE_CAMPAIGN"
"""The environment variable that the dataset spec campaign reads its folder from."""
DAYS = 102
"""Days of minutes: two more than the history, since the rule `repeated` compares with the day before."""


def write_campaign() -> Path:
    """Write minutes.csv and hours.csv under TUTELAGE_HOME, point TUTELAGE_CAMPAIGN to their folder, and return it."""
    household, campaign = (load_dataset_spec(datasets_folder() / f"{name}.yaml") for name in ("household", "campaign"))
    folder, files = home() / "sources" / "campaign", source_files(household.source)
    end, written = campaign.step_changes[0].since, household.timestamp
    [time] = written.columns
    first, last = (
        pl.lit(f"{moment.astimezone(ZoneInfo(written.timezone)):{written.format}}")
        for moment in (end - dt.timedelta(days=DAYS), end)
    )
    minutes = pl.concat([pl.scan_csv(file, infer_schema=False) for file in files])
    hours = student_table(
        clean(read_readings(files, household).filter(pl.col("time_utc") >= end), household), household
    )
    on_its_clock = pl.col("time_utc").dt.convert_time_zone(written.timezone).dt.strftime(written.format).alias(time)
    tables = {
        "minutes.csv": minutes.filter(pl.col(time).is_between(first, last, closed="left")).collect(),
        "hours.csv": hours.select(on_its_clock, pl.col(household.target).alias(household.target_column.source)),
    }
    for name, table in tables.items():
        with written_whole(folder / name) as part:
            table.write_csv(part)
    os.environ[VARIABLE] = str(folder)
    return folder
