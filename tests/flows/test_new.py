"""From a file that nobody has described to a look at its data: `make new`, the open values, `make data`."""

import datetime as dt
from pathlib import Path

import pytest
import yaml

import flows.data
import flows.new
from runtime.paths import datasets_folder
from tests.flows.test_many_series import power_of
from tests.flows.test_many_series import write_fleet as write_meters
from tutelage.contract import OPEN
from tutelage.data.dataset import load_dataset_spec
from tutelage.errors import SpecError

LOOK = ["horizon_hours=6", "lookback_hours=24", "history_days=none", "test_days=10"]
METERS = {"north": power_of(3, seed=0), "south": power_of(4, seed=1)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of two meters, and no spec."""
    write_meters(tmp_path, "meters", METERS)
    (tmp_path / "meters.yaml").unlink()
    return tmp_path


def filled(path: Path) -> None:
    """Fill in what the file doesn't say."""
    text = path.read_text()
    assert OPEN in text
    for line, value in (("description:", "two meters"), ("timezone: &zone", "UTC"), ("unit:", "kW")):
        text = text.replace(f"{line} '{OPEN}'", f"{line} {value}")
    path.write_text(text)


@pytest.mark.usefixtures("prefect_server")
def test_new__a_spec_with_open_values_leads_to_a_look_at_the_data(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flows.new.main([f"file={folder}", "name=two-meters"]) == 0
    shown = capsys.readouterr().out
    path = datasets_folder() / "two-meters.yaml"
    assert f"Written: {path}" in shown
    assert "2160 rows from 2024-01-01 00:00:00 to 2024-02-14 23:00:00, 2 series: north, south" in shown
    assert path.read_text().startswith("# Written by `make new`. Fill in each '?'")
    assert flows.data.main(["dataset=two-meters", *LOOK]) == 1
    still_open = "dataset spec two-meters.yaml: still to be filled in, in place of '?': description, timestamp.timezone"
    assert still_open in capsys.readouterr().err
    filled(path)
    spec = load_dataset_spec(path)
    assert (spec.series_column, spec.target, spec.names()) == ("meter", "p", ["p"])
    assert flows.data.main(["dataset=two-meters", *LOOK]) == 0
    assert "two-meters-6h: 2160 readings, 2160 hours, 0 null" in capsys.readouterr().out


def test_new__of_a_folder_with_a_file_for_each_meter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, power in METERS.items():
        write_meters(folder / "each", name, {name: power})
        (folder / "each" / f"{name}.yaml").unlink()
    assert flows.new.main([f"file={folder / 'each'}", "name=each-meter"]) == 0
    assert "2 files, each a series; north.csv, the first of them:" in capsys.readouterr().out
    content = yaml.safe_load((datasets_folder() / "each-meter.yaml").read_text())
    assert (content["series_from"], content["source"]["path"]) == ("file", str(folder / "each" / "*.csv"))


def test_new__names_each_open_value(folder: Path) -> None:
    assert flows.new.main([f"file={folder}", "name=open-values"]) == 0
    with pytest.raises(SpecError, match=r"description, timestamp\.timezone, columns\.0\.unit, calendar\.timezone$"):
        load_dataset_spec(datasets_folder() / "open-values.yaml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "file: name the file to look at: make new FILE=meters.csv"),
        (["file=nowhere.csv"], "no file matches "),
        (["file={folder}", "name=My Air"], "name: 'My Air' is not made of small letters, digits and hyphens"),
        (["file={folder}", "name=/outside"], "name: '/outside' is not made of small letters, digits and hyphens"),
        (["file={folder}", "name=taken"], "there is a spec taken.yaml already; take another name"),
        (["file={folder}", "target=q"], "meters.csv: 'q' is no column of numbers; these are: 'p'"),
    ],
)
@pytest.mark.bad_input
def test_new__refuses_with_a_sentence(
    arguments: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets_folder().mkdir(parents=True, exist_ok=True)
    (datasets_folder() / "taken.yaml").write_text("name: taken\n")
    assert flows.new.main([argument.format(folder=folder) for argument in arguments]) == 1
    shown = capsys.readouterr()
    assert sentence in shown.err
    assert "Traceback" not in shown.err
    assert (datasets_folder() / "taken.yaml").read_text() == "name: taken\n"
    (datasets_folder() / "taken.yaml").unlink()


def test_new__a_column_may_be_called_as_yaml_calls_no_and_yes(tmp_path: Path) -> None:
    rows = [f"2024-01-{day:02d} {hour:02d}:00,{day + hour},{hour},{day}" for day in range(1, 15) for hour in range(24)]
    (tmp_path / "air.csv").write_text("\n".join(["time,NO,NO2,on", *rows]) + "\n")
    assert flows.new.main([f"file={tmp_path / 'air.csv'}"]) == 0
    content = yaml.safe_load((datasets_folder() / "air.yaml").read_text())
    assert (content["target"], [column["name"] for column in content["columns"]]) == ("no", ["no", "no2", "on"])


@pytest.mark.parametrize(
    ("minutes", "raw", "student"),
    [(1440, "P1D", "P1D"), (120, "PT2H", "PT2H"), (15, "PT15M", "PT1H"), (60, "PT1H", "PT1H"), (1, "PT1M", "PT1H")],
)
def test_new__proposes_a_step(tmp_path: Path, minutes: int, raw: str, student: str) -> None:
    file = tmp_path / f"every-{minutes}.csv"
    times = [dt.datetime(2024, 1, 1) + place * dt.timedelta(minutes=minutes) for place in range(60)]
    file.write_text("\n".join(["time,power_kw", *(f"{time},{time.hour + 0.5}" for time in times)]))
    assert flows.new.main([f"file={file}"]) == 0
    text = (datasets_folder() / f"every-{minutes}.yaml").read_text()
    spec = yaml.safe_load(text)
    assert (spec["raw_step"], spec["student_step"]) == (raw, student)
    assert spec["timestamp"]["timezone"] == ("UTC" if minutes == 1440 else OPEN)
    assert ("# or PT15M, to forecast it" in text) is (minutes == 15)
    assert spec.get("serving") == ({"at_most_hours": 24} if minutes == 1440 else None)
