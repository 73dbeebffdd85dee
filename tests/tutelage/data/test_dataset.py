import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tutelage.data.builders import METER, REPOSITORY, edited, write_spec
from tutelage.data.dataset import Role, load_dataset_spec
from tutelage.errors import SpecError


def test_household__parses() -> None:
    spec = load_dataset_spec(REPOSITORY / "deployments" / "datasets" / "household.yaml")
    assert spec.names(Role.OBSERVED) == [spec.target] == ["global_active_power_kw"]
    assert len(spec.names(Role.PRIVILEGED)) == 6
    assert spec.names(Role.KNOWN_FUTURE) == []
    assert (spec.readings_per_step, spec.timestamp.timezone, spec.calendar.country) == (60, "Etc/GMT-1", "FR")
    assert spec.quality.repeated is not None
    assert spec.quality.repeated.after == dt.timedelta(days=1)
    assert {c.name for c in spec.columns if c.aggregation == "sum"} == {
        "kitchen_wh",
        "laundry_wh",
        "water_heater_and_ac_wh",
    }


@pytest.mark.parametrize("path", sorted((REPOSITORY / "deployments" / "datasets").glob("*.yaml")), ids=lambda p: p.stem)
def test_specs_in_use__parse(path: Path) -> None:
    steps = {"ett-quarters": "15 min", "seattle": "24 h"}
    assert load_dataset_spec(path).grid.name == steps.get(path.stem, "1 h")


def test_ett__parses() -> None:
    spec = load_dataset_spec(REPOSITORY / "deployments" / "datasets" / "ett.yaml")
    assert spec.names(Role.OBSERVED) == ["oil_temperature_c"]
    assert len(spec.names(Role.PRIVILEGED)) == 6
    assert spec.readings_per_step == 4
    assert spec.source.path == "$TUTELAGE_ETT/ETTm1.csv"
    assert spec.source.sha256 is not None


def test_names__put_the_target_first(tmp_path: Path) -> None:
    columns = METER["columns"]
    spec = load_dataset_spec(write_spec(tmp_path, METER | {"columns": columns[::-1]}))
    assert spec.names() == ["power_kw", "voltage_v", "indoor_c"]
    assert spec.target_column.source == "power"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"colour": "red"}, "colour: unknown key"),
    ({"source.colour": "red"}, "source.colour: unknown key"),
    ({"columns.1.colour": "red"}, "columns.1.colour: unknown key"),
    ({"quality.frozen.colour": "red"}, "quality.frozen.colour: unknown key"),
    ({"name": "metre"}, "name: 'metre' is not the file's name, 'meter'"),
    ({"target": "voltage_v"}, "target: 'voltage_v' has the role 'privileged'"),
    ({"columns.0.role": "known_future"}, "target: 'power_kw' has the role 'known_future'"),
    ({"target": "heat_kw"}, "target: 'heat_kw' is not one of the columns"),
    ({"student_step": "PT30S"}, "student_step: 0:00:30 is finer than raw_step 0:01:00"),
    ({"student_step": "PT45M"}, "student_step: 0:45:00 is not 5 minutes or more that divide an hour, or hours that"),
    ({"student_step": "PT5H"}, "student_step: 5:00:00 is not 5 minutes or more that divide an hour, or hours that"),
    (
        {"student_step": "PT2H", "timestamp.timezone": "Europe/Paris"},
        "student_step: with summer time in Europe/",
    ),
    ({"raw_step": "PT7M"}, "student_step: 1:00:00 is not a multiple of raw_step 0:07:00"),
    ({"raw_step": "PT0S"}, "raw_step: 0:00:00 is not above zero"),
    ({"columns.1.source": "power"}, "columns: source 'power' occurs twice, so its roles overlap"),
    ({"columns.1.name": "power_kw"}, "columns: name 'power_kw' occurs twice, so its roles overlap"),
    ({"columns.1.name": "series_id"}, "columns: name 'series_id' is taken"),
    ({"columns.1.role": "secret"}, "columns.1.role: "),
    ({"timestamp.timezone": "Europe/Sceaux"}, "timestamp.timezone: 'Europe/Sceaux' is not an IANA time zone"),
    ({"calendar.timezone": "+01:00"}, "calendar.timezone: '+01:00' is not an IANA time zone"),
    ({"columns.2.minimum": 260}, "columns.2: minimum 260.0 is not below maximum 260.0"),
    ({"columns.2.minimum": 300}, "columns.2: minimum 300.0 is not below maximum 260.0"),
    ({"source.sha256": "6ce1"}, "source.sha256: String should match pattern"),
    ({"source.package": "EnergyData", "source.file": "a.csv"}, "source: give either path, or package and file"),
    ({"source": {"format": "csv"}}, "source: give either path, or package and file"),
    ({"source": {"package": "EnergyData"}}, "source: package and file go together"),
    ({"calendar.country": "XX"}, "calendar: country: no holidays are known of 'XX'; leave it empty for none"),
    ({"calendar.region": "Bavaria", "calendar.country": "DE"}, "calendar: region: 'Bavaria' is none of DE's: BB, BE, "),
    ({"calendar": {"timezone": "UTC", "region": "BY"}}, "calendar: region 'BY' needs a country"),
    ({"source.encoding": "utf-99"}, "source.encoding: 'utf-99' is not an encoding that Python knows"),
    ({"source.decimal": ",", "source.thousands": ","}, "source: decimal and thousands are the same mark, ','"),
    ({"quality.repeated.tolerance": 1.5}, "quality.repeated.tolerance: "),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED, ids=[f"{c}"[1:-1] for c, _ in REFUSED])
@pytest.mark.bad_input
def test_load__refuses_with_file_and_key(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        load_dataset_spec(write_spec(tmp_path, edited(changes)))
    assert str(error.value).startswith(f"dataset spec meter.yaml: {sentence}")


def test_load__names_all_faults_at_once(tmp_path: Path) -> None:
    content = edited({"colour": "red", "timestamp.timezone": "nowhere"})
    del content["target"]
    with pytest.raises(SpecError) as error:
        load_dataset_spec(write_spec(tmp_path, content))
    for sentence in (
        "colour: unknown key",
        "timestamp.timezone: 'nowhere' is not an IANA time zone",
        "target: Field required",
    ):
        assert sentence in str(error.value)


@pytest.mark.bad_input
def test_load__missing_file_names_the_known_datasets(tmp_path: Path) -> None:
    write_spec(tmp_path, METER)
    with pytest.raises(SpecError, match=r"^there is no dataset spec metre\.yaml; known datasets: meter$"):
        load_dataset_spec(tmp_path / "metre.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- power\n- volts\n", "expected keys and values, found list"),
        ("power", "expected keys and values, found str"),
        ("", "expected keys and values, found NoneType"),
        ("columns: [", "is not valid YAML"),
    ],
)
@pytest.mark.bad_input
def test_load__refuses_what_is_no_mapping(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "meter.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=rf"^dataset spec meter\.yaml.* {sentence}"):
        load_dataset_spec(path)


def test_load__another_target_of_the_same_spec(tmp_path: Path) -> None:
    write_spec(tmp_path, METER)
    spec = load_dataset_spec(tmp_path / "meter--indoor-c.yaml")
    assert (spec.name, spec.target, spec.target_column.unit) == ("meter--indoor-c", "indoor_c", "°C")
    assert spec.names(Role.OBSERVED) == ["indoor_c", "power_kw"], "the target first"
    assert load_dataset_spec(tmp_path / "meter--power-kw.yaml").target == "power_kw"
    for other in ("voltage-v", "nothing"):
        with pytest.raises(SpecError) as error:
            load_dataset_spec(tmp_path / f"meter--{other}.yaml")
        assert str(error.value) == (
            f"dataset meter--{other}: no observed column is that; there are meter--power-kw, meter--indoor-c"
        )


def test_load__a_file_that_is_named_like_another_target_is_read(tmp_path: Path) -> None:
    """As `make reproduce` writes it."""
    plain = METER | {"name": "meter--indoor-c", "target": "indoor_c"}
    (tmp_path / "meter--indoor-c.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert load_dataset_spec(tmp_path / "meter--indoor-c.yaml").target == "indoor_c"
