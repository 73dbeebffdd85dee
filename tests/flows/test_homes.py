import importlib.metadata
import os
from pathlib import Path

import polars as pl
import pytest

from flows import homes
from flows.homes import VARIABLE, read_homes, read_weather, write_homes
from runtime.paths import home
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.readings import read_readings
from tutelage.data.source import source_files
from tutelage.errors import DataError

SPECS = Path(__file__).parent.parent.parent / "deployments" / "datasets"


def test_read_homes__are_seventeen_for_a_year() -> None:
    table = read_homes()
    assert table["home"].n_unique() == 17
    assert table.group_by("home").len()["len"].unique().to_list() == [8760]
    first, last = table["time"].min(), table["time"].max()
    assert (f"{first}", f"{last}") == ("2016-07-31 23:00:00", "2017-07-31 22:00:00")
    assert table["load_kwh"].null_count() == 0


def test_write_homes__are_what_the_specs_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "nowhere")
    folder = write_homes()
    assert folder == home() / "sources" / "homes"
    assert os.environ[VARIABLE] == str(folder)
    series = {}
    for name in ("homes", "new-home", "homes-weather"):
        spec = load_dataset_spec(SPECS / f"{name}.yaml")
        readings = read_readings(source_files(spec.source), spec)
        series[name] = set(readings["series_id"].unique())
        assert readings["load_kwh"].is_between(0, 50).all()
    assert series["new-home"] == {"home-17"}
    assert len(series["homes"]) == 16
    assert not series["homes"] & series["new-home"]
    assert series["homes-weather"] == series["homes"] | series["new-home"]


def test_read_weather__is_as_measured_and_holds_no_forecast_that_knows_the_future() -> None:
    weather = read_weather()
    assert weather.columns == ["time", "temperature_c", "direct_sun_w_m2"]
    assert weather["time"].to_list() == read_homes().filter(pl.col("home") == "home-01")["time"].to_list()
    night = weather.filter(pl.col("time").dt.hour() == 1)
    assert (night["direct_sun_w_m2"] == 0).all()
    assert weather["temperature_c"].is_between(0, 40).all()


def test_read_homes__refuses_files_of_other_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pl.read_csv
    monkeypatch.setattr(homes.pl, "read_csv", lambda path: real(path).slice(1))
    with pytest.raises(DataError, match=r"Building_1.csv: \d+ rows are not of the hour that follows"):
        read_homes()


def test_read_homes__the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(homes.importlib.metadata, "files", missing)
    with pytest.raises(DataError, match=r"pip install --no-deps CityLearn==2\.1\.2"):
        read_homes()
