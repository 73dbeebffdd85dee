"""The demo's homes: the data of seventeen homes in California, as files that dataset specs name.

The package CityLearn (MIT) ships a year of hourly values of each, without dates: month, hour of the day from 1 to 24,
day of the week. The first hour is the last one of 31 July, a Sunday, which makes the year 2016; the clock keeps
standard time. The first sixteen homes go into one file, the seventeenth, the new home, into another; all of them
with the weather into a third.

`python -m flows.homes` writes the files and says where they are.
"""

import datetime as dt
import importlib.metadata
import os
from pathlib import Path

import polars as pl

from runtime.paths import home
from tutelage.errors import DataError
from tutelage.files import written_whole

PACKAGE, FOLDER = "CityLearn", "citylearn/data/citylearn_challenge_2022_phase_all"
HOMES = 17
FIRST_HOUR = dt.datetime(2016, 7, 31, 23)
LOAD = "Equipment Electric Power [kWh]"
WEATHER = {
    "Outdoor Drybulb Temperature [C]": "temperature_c",
    "Direct Solar Radiation [W/m2]": "direct_sun_w_m2",
}
VARIABLE = "TUTELAGE_HOMES"
"""The environment variable that the dataset specs homes, new-home and homes-weather read their folder from."""


def _files() -> dict[str, Path]:
    try:
        return {str(file): Path(str(file.locate())) for file in importlib.metadata.files(PACKAGE) or []}
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"package {PACKAGE} is not installed: pip install --no-deps {PACKAGE}==2.1.2") from None


def read_weather() -> pl.DataFrame:
    """One row per hour: time and the measured weather.

    The package's weather forecasts are left out: each is the measurement of its hour to the last digit, which no
    forecaster will have.

    Raises DataError where the package is not installed.
    """
    table = pl.read_csv(_files()[f"{FOLDER}/weather.csv"])
    time = pl.lit(FIRST_HOUR) + pl.duration(hours=pl.int_range(pl.len()))
    return table.select(time.alias("time"), *(pl.col(column).alias(name) for column, name in WEATHER.items()))


def read_homes() -> pl.DataFrame:
    """One row per home and hour: home, time, load_kwh.

    Raises DataError where the package is not installed, or a file has other hours than expected.
    """
    files, tables = _files(), []
    for number in range(1, HOMES + 1):
        name = f"{FOLDER}/Building_{number}.csv"
        table = pl.read_csv(files[name]).select(
            home=pl.lit(f"home-{number:02d}"),
            time=pl.lit(FIRST_HOUR) + pl.duration(hours=pl.int_range(pl.len())),
            load_kwh=pl.col(LOAD),
            month=pl.col("Month").cast(pl.Int64),
            hour=pl.col("Hour").cast(pl.Int64),
        )
        begins = pl.col("time").dt.hour() + 1 == pl.col("hour")
        wrong = table.filter(~begins | (pl.col("time").dt.month() != pl.col("month"))).height
        if wrong:
            raise DataError(f"package {PACKAGE}, {name}: {wrong} rows are not of the hour that follows the row before")
        tables.append(table.select("home", "time", "load_kwh"))
    return pl.concat(tables)


def write_homes() -> Path:
    """Write the files under TUTELAGE_HOME, point TUTELAGE_HOMES to their folder, and return it."""
    folder = home() / "sources" / "homes"
    table = read_homes()
    new = pl.col("home") == f"home-{HOMES}"
    weathered = table.join(read_weather(), on="time", how="left", maintain_order="left")
    files = {"homes.csv": table.filter(~new), "new-home.csv": table.filter(new), "homes-weather.csv": weathered}
    for name, rows in files.items():
        with written_whole(folder / name) as part:
            rows.write_csv(part, datetime_format="%Y-%m-%d %H:%M:%S")
    os.environ[VARIABLE] = str(folder)
    return folder


if __name__ == "__main__":
    print(f"export {VARIABLE}={write_homes()}")
